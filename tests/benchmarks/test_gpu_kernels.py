"""The GPU measurements where torch is installed but sees no GPU: kernel, tables, refusal."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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
from benchmarks.gpu.paged_decode import PAGE, PagedDecode

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
MEASURED = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
import benchmarks.gpu.context_attention as prefill
import benchmarks.gpu.decode_attention as decode
import benchmarks.gpu.gemm as gemm

torch.cuda.get_device_properties = lambda index: SimpleNamespace(
    name="NVIDIA H200", multi_processor_count=132, total_memory=150e9
)
gemm.gemm_s = lambda m, n, k: 2e-6 + 2.0 * m * n * k / 6e14
prefill.attention_s = lambda *case: 1e-5 + 1e-12 * case[1] * case[2] ** 2 * case[4]
decode.call_s = lambda call, copies: 1e-4
decode.PagedDecode = lambda *shape, **rest: SimpleNamespace(error=lambda: 0.0)
for section in (gemm, prefill, decode):
    section.measure(Path(sys.argv[1]), 60.0)
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


@needs_torch
def test_tables_are_what_calibrate_reads(tmp_path: Path) -> None:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    _python(MEASURED, tmp_path)
    from blendplan.cost.calibration.operator_fits import enough, fits
    from blendplan.hardware.lookup import gpu_spec

    found = {fit.operator: fit for fit in fits(tmp_path, gpu_spec("h200")) if enough(fit)}
    assert set(found) == {"gemm", "decode_attention", "prefill_attention"}
    assert found["gemm"].path == ("bf16",)
    assert found["decode_attention"].path == ("bf16", "paged_split_kv")
    cached = found["prefill_attention"].rows["cached_len"]
    assert cached.min() == 0 < cached.max()


@needs_torch
def test_refused_with_one_line_without_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    refusal = "error: torch sees no GPU here; run this on a machine with one\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", refusal)
    assert not (tmp_path / "out").exists()
