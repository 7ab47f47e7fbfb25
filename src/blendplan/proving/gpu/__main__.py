"""Measure the GPUs of this machine: ``python -m blendplan.proving.gpu --out DIR``.

Writes the tables that ``blendplan calibrate --kernels`` reads, what launches cost, and how far GEMM
and decode attention overlap. What is in the folder already is not measured again. Needs torch with
a GPU and Triton; takes a few minutes.
"""

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from blendplan.proving.gpu.sections import DEFAULT_SECONDS, MACHINE, SECTIONS
from blendplan.whole_file import replacing


def main(words: list[str] | None = None) -> int:
    """Run the sections that the command line names; 0 if none failed."""
    arguments = _arguments(words)
    out: Path = arguments.out
    wanted = [name for name in arguments.sections if arguments.again or not _done(name, out)]
    if not wanted:
        print(f"everything is in {out} already; --again measures again", flush=True)
        return 0
    if reason := _missing():
        print(f"error: {reason}", file=sys.stderr)
        return 1

    from blendplan.proving.gpu.machine import machine_facts

    facts = machine_facts()
    if reason := _of_another_gpu(out, facts):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / MACHINE) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts), flush=True)
    failed = [name for name in wanted if not _run(name, out, arguments.seconds)]
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m blendplan.proving.gpu", description="Measure the GPUs of this machine."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="of " + ", ".join(SECTIONS))
    parser.add_argument(
        "--seconds", type=float, default=DEFAULT_SECONDS, help="limit per section (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="also what is in the folder already")
    arguments = parser.parse_args(words)
    arguments.sections = arguments.sections.split(",")
    if unknown := [name for name in arguments.sections if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}: known are {', '.join(SECTIONS)}")
    if not 0 < arguments.seconds < float("inf"):
        parser.error(f"--seconds {arguments.seconds}: give a number above 0")
    return arguments


def _done(name: str, out: Path) -> bool:
    there = SECTIONS[name].done(out)
    if there:
        print(f"== {name}: {SECTIONS[name].result} is there already", flush=True)
    return there


def _missing() -> str | None:
    """Why nothing can be measured here, or None."""
    try:
        import torch
    except ImportError:
        return "torch is not installed; these measurements need torch with a GPU"
    if not torch.cuda.is_available():
        return "torch sees no GPU here; run this on a machine with one"
    return None


def _of_another_gpu(out: Path, facts: dict[str, Any]) -> str | None:
    """Why this folder is not to be added to: what is there was measured on something else."""
    try:
        device = json.loads((out / MACHINE).read_text())["device"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if device == facts["device"]:
        return None
    return (
        f"{out} holds measurements of {device}, and this is {facts['device']}; name another --out"
    )


def _run(name: str, out: Path, limit_s: float) -> bool:
    """One section; its failure is printed and does not stop the others."""
    started = time.perf_counter()
    print(f"== {name}", flush=True)
    try:
        SECTIONS[name].measure(out, limit_s)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return False
    finally:
        print(f"== {name} took {time.perf_counter() - started:.1f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
