"""Measure one GPU: ``python -m benchmarks.gpu --out DIR``, from the root of the repository.

Writes ``gemm.parquet``, ``decode_attention.parquet`` and ``context_attention.parquet`` in the
column format that ``blendplan calibrate --kernels`` reads, ``overlap.json`` (pairs of GEMM and
decode attention run alone and together) and ``overlap_fit.json`` (the overlap exponent q and the
frontier). Needs torch with a GPU and Triton; takes about five minutes.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

SECTIONS = ("gemm", "decode", "prefill", "overlap")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description="Measure one GPU.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="of " + ", ".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=80.0, help="limit per section")
    arguments = parser.parse_args()
    sections = arguments.sections.split(",")
    if unknown := [name for name in sections if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}: known are {', '.join(SECTIONS)}")
    if reason := _missing():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)

    from benchmarks.gpu.timing import gpu_facts

    facts = gpu_facts()
    (arguments.out / "machine.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts), flush=True)
    failed = [name for name in sections if not _run(name, arguments.out, float(arguments.seconds))]
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


def _missing() -> str | None:
    """Why nothing can be measured here, or None."""
    try:
        import torch
    except ImportError:
        return "torch is not installed; these measurements need torch with a GPU"
    if not torch.cuda.is_available():
        return "torch sees no GPU here; run this on a machine with one"
    return None


def _run(name: str, out: Path, limit_s: float) -> bool:
    """One section; its failure is printed and does not stop the others."""
    started = time.perf_counter()
    print(f"== {name}", flush=True)
    try:
        _section(name)(out, limit_s)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return False
    finally:
        print(f"== {name} took {time.perf_counter() - started:.1f} s", flush=True)
    return True


def _section(name: str) -> Callable[[Path, float], None]:
    if name == "gemm":
        from benchmarks.gpu.gemm import measure
    elif name == "decode":
        from benchmarks.gpu.decode_attention import measure
    elif name == "prefill":
        from benchmarks.gpu.context_attention import measure
    else:
        from benchmarks.gpu.overlap import measure
    return measure


if __name__ == "__main__":
    sys.exit(main())
