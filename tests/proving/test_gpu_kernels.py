"""The GPU measurements where torch is installed: without a GPU, all but the GPU's own times."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from blendplan.cost.calibration.kernel_tables import all_reduce_rows
from blendplan.cost.calibration.operator_fits import LEAST_ROWS, enough, fits
from blendplan.hardware.lookup import gpu_spec
from blendplan.proving.gpu.cases import write_rows

ROOT = Path(__file__).parents[2]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
needs_triton = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("triton") is None,
    reason="torch and triton are not installed",
)
# Sequences, context, heads, KV heads, head dimension, and how many multiprocessors to spread over.
SHAPES = (
    (3, 1000, 32, 8, 128, 4),
    (1, 17, 8, 1, 64, 4),
    (2, 700, 4, 4, 64, 16),
    (1, 2048, 28, 4, 128, 64),
    (1, 1, 8, 2, 64, 4),
)
INTERPRETED = f"""
import json, math
import numpy as np
import torch
from blendplan.proving.gpu.paged_decode import PAGE, PagedDecode

torch.manual_seed(0)
found = []
for batch, context, heads, kv_heads, dim, sms in {SHAPES}:
    call = PagedDecode(
        batch, context, heads, kv_heads, dim=dim, device="cpu", sm_count=sms, dtype=torch.float32
    )
    call()
    query, keys, values, pages = (
        t.numpy().astype(np.float64) for t in (call.query, call.keys, call.values, call.pages)
    )
    worst = 0.0
    for sequence in range(batch):
        for head in range(heads):
            # One key after the other, through the page table.
            slots = [
                (int(pages[sequence, token // PAGE]), token % PAGE, head * kv_heads // heads)
                for token in range(context)
            ]
            score = np.array([query[sequence, head] @ keys[slot] for slot in slots])
            weight = np.exp((score - score.max()) / math.sqrt(dim))
            want = weight @ np.array([values[slot] for slot in slots]) / weight.sum()
            got = call.output[sequence, head].numpy()
            worst = max(worst, float(np.abs(got - want).max()))
    found.append([call.splits, worst])
print(json.dumps(found))
"""
# The measuring loops with clocks and devices that are made up.
DEVICE = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace
import torch

properties = SimpleNamespace(
    name="NVIDIA H200",
    multi_processor_count=132,
    total_memory=150_109_880_320,
    L2_cache_size=50_000_000,
    uuid="0-1-2",
)
torch.cuda.get_device_properties = lambda index: properties
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.synchronize = lambda device=None: None
zeros = torch.zeros
torch.zeros = lambda *sizes, device=None, **rest: zeros(*sizes, **rest)

import blendplan.proving.gpu.context_attention as prefill
import blendplan.proving.gpu.decode_attention as decode
import blendplan.proving.gpu.gemm as gemm
import blendplan.proving.gpu.launch as launch
import blendplan.proving.gpu.overlap as overlap
from blendplan.proving.gpu.__main__ import main

gemm.gemm_s = lambda m, n, k: 2e-6 + 2.0 * m * n * k / 6e14
prefill.attention_s = lambda *case: 1e-5 + 1e-12 * case[1] * case[2] ** 2 * case[4]
decode.call_s = lambda call, copies: 1e-4
decode.PagedDecode = lambda *shape, **rest: SimpleNamespace(error=lambda: 0.0)
torch.cuda.Stream = lambda **rest: None
launch.captured = lambda launch: SimpleNamespace(replay=launch)


def elapsed_s(way):
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


launch.elapsed_s = elapsed_s
overlap.Gemms = lambda tokens: tokens * 1e-6
overlap.Decodes = lambda batch, context, sm_count: batch * context * 1e-9
overlap._alone_s = lambda call_s, calls, stream: call_s
overlap._together_s = lambda gemm_s, gemms, _, decode_s, decodes, __: (
    (gemm_s * gemms) ** 2 + (decode_s * decodes) ** 2
) ** 0.5
"""
MEASURED_TWICE = """
out = Path(sys.argv[1])
assert main(["--out", str(out)]) == 0
gemms = (out / "gemm.parquet").read_bytes()
(out / "gemm.parquet").write_bytes(b"as it was")
(out / "launch.json").unlink()
assert main(["--out", str(out)]) == 0
assert (out / "gemm.parquet").read_bytes() == b"as it was"
assert (out / "launch.json").exists()
assert main(["--out", str(out), "--again", "--sections", "gemm"]) == 0
assert (out / "gemm.parquet").read_bytes() == gemms
"""
FAILED_AND_REFUSED = """
def gone(*case):
    raise RuntimeError("no such kernel")


prefill.attention_s = gone
assert main(["--out", sys.argv[1], "--sections", "prefill,launch"]) == 1
assert main(["--out", sys.argv[2]]) == 1
"""
SIZES_OF_SECTIONS = """
import json
import blendplan.proving.gpu.context_attention as prefill
import blendplan.proving.gpu.decode_attention as decode
import blendplan.proving.gpu.gemm as gemm
from blendplan.cost.calibration.kernel_tables import LEAST_FEATURES, LEAST_PREFILL_TOKENS
from blendplan.hardware.lookup import gpu_names, gpu_spec

found = {}
for name in gpu_names():
    gpu = gpu_spec(name)
    backends = [case[0] for case in prefill.cases() if case[2] >= LEAST_PREFILL_TOKENS]
    found[name] = [
        sum(min(n, k) >= LEAST_FEATURES for m, n, k in gemm.cases()),
        len(decode.cases(gpu.l2_bytes, gpu.memory_bytes)),
        *(backends.count(backend) for backend in prefill.BACKENDS),
        min(gemm.operand_copies(*case, gpu.l2_bytes, gpu.memory_bytes) for case in gemm.cases()),
    ]
print(json.dumps(found))
"""
REDUCED = """
if __name__ == "__main__":
    import json
    from blendplan.proving.gpu.all_reduce import time_ranks

    rows = time_ranks(2, "gloo", (1 << 13, 3 << 14, 1 << 20), 60.0)
    try:
        time_ranks(1, "gloo", (-8,), 60.0)
        failed = "no"
    except Exception as error:
        failed = str(error)
    print(json.dumps([rows, failed]))
"""


def _python(code: str, *words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@needs_triton
def test_paged_decode_is_plain_attention() -> None:
    """In Triton's interpreter, which knows no bf16, in float32."""
    found = json.loads(_python(INTERPRETED, TRITON_INTERPRET="1").stdout)
    assert max(error for _, error in found) < 1e-5
    assert {splits > 1 for splits, _ in found} == {True, False}


@needs_triton
def test_sections_on_a_made_up_device(tmp_path: Path) -> None:
    """Tables are what calibrate reads, and what is there is not measured again."""
    done = _python(f"{DEVICE}\n{MEASURED_TWICE}", tmp_path)
    assert "failed" not in done.stdout
    assert "there is one GPU, so nothing to reduce over" in done.stdout
    assert "of which a fit needs" not in done.stdout
    assert "gemm.parquet is there already" in done.stdout
    facts = json.loads((tmp_path / "machine.json").read_text())
    assert (facts["gpu"], facts["device"], facts["gpus"]) == ("h200", "NVIDIA H200", 1)
    assert {"torch", "cuda", "triton", "blendplan", "date"} <= set(facts)

    found = {fit.operator: fit for fit in fits(tmp_path, gpu_spec("h200")) if enough(fit)}
    assert set(found) == {"gemm", "decode_attention", "prefill_attention"}
    assert found["gemm"].path == ("bf16",)
    assert found["decode_attention"].path == ("bf16", "paged_split_kv")
    cached = found["prefill_attention"].rows["cached_len"]
    assert cached.min() == 0 < cached.max()
    best = json.loads((tmp_path / "overlap_fit.json").read_text())["exponent"]["best"]
    assert best["q"] == pytest.approx(2.0, abs=0.05)
    assert json.loads((tmp_path / "launch.json").read_text())["eager_kernel_s"] > 0


@needs_triton
def test_what_fails_and_what_is_refused_on_a_made_up_device(tmp_path: Path) -> None:
    """A section that fails does not stop the others; a folder of another GPU is left alone."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    other.mkdir()
    (other / "machine.json").write_text('{"device": "NVIDIA L4"}')
    done = _python(f"{DEVICE}\n{FAILED_AND_REFUSED}", ours, other)
    assert "RuntimeError: all cases were refused: no such kernel" in done.stdout
    assert "failed: prefill\n" in done.stdout
    assert sorted(path.name for path in ours.iterdir()) == ["launch.json", "machine.json"]
    said = f"error: {other} holds measurements of NVIDIA L4, and this is NVIDIA H200; "
    assert done.stderr.startswith(said)
    assert [path.name for path in other.iterdir()] == ["machine.json"]


@needs_triton
def test_every_kernel_has_rows_enough_to_fit() -> None:
    """On every GPU of the catalogue, of what the fits use, with a half to spare."""
    for name, (*rows, copies) in json.loads(_python(SIZES_OF_SECTIONS).stdout).items():
        assert min(rows) >= 1.5 * LEAST_ROWS, (name, rows)
        assert copies >= 1


@needs_torch
def test_all_reduce_between_processes(tmp_path: Path) -> None:
    """On the CPU: processes that meet, sum, agree on how often, and take times, or end together."""
    script = tmp_path / "reduce.py"  # a file, for processes that are started anew
    script.write_text(REDUCED)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rows, failed = json.loads(done.stdout.splitlines()[-1])
    assert sorted(row["bytes"] for row in rows) == [1 << 13, 3 << 14, 1 << 20]
    assert {(row["ranks"], row["source"], row["dtype"]) for row in rows} == {(2, "gloo", "bf16")}
    assert all(row["time_ms"] > 0 for row in rows)
    assert "RuntimeError" in failed
    named = [{"gpu": "h200", "node": "", "version": "2.27.3", **row} for row in rows]
    write_rows(named, tmp_path / "all_reduce.parquet")
    table = all_reduce_rows(tmp_path)
    assert table is not None
    assert len(table) == len(rows)


@needs_torch
def test_refused_with_one_line_without_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ran = subprocess.run(
        [sys.executable, "-m", "blendplan.proving.gpu", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    refusal = "error: torch sees no GPU here; run this on a machine with one\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", refusal)
    assert not (tmp_path / "out").exists()
