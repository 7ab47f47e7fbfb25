"""bf16 GEMM times of the shapes of real models, and of a grid, on this GPU."""

import random
from pathlib import Path

import torch
from benchmarks.gpu.timing import Clock, call_s, gpu_name, write_rows

TOKENS = (1, 4, 16, 32, 64, 128, 129, 192, 256, 257, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)
# (n, k) of qkv, o, gate-up and down per GPU.
SHAPES = {
    "llama-3-8b tp1": ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)),
    "llama-3-8b tp2": ((3072, 4096), (4096, 2048), (14336, 4096), (4096, 7168)),
    "llama-3-70b tp1": ((10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672)),
    "llama-3-70b tp4": ((2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168)),
    "qwen-2.5-7b tp1": ((4608, 3584), (3584, 3584), (37888, 3584), (3584, 18944)),
    "output head": ((128256, 4096),),
    "grid": tuple((n, k) for n in (1024, 4096, 16384) for k in (1024, 4096, 16384)),
}
OPERAND_SETS = 6


def measure(out: Path, limit_s: float) -> None:
    """Time all shapes in random order, so that a cut leaves a fair sample."""
    shapes = sorted({shape for group in SHAPES.values() for shape in group})
    cases = [(m, n, k) for n, k in shapes for m in TOKENS]
    random.Random(0).shuffle(cases)
    clock = Clock("gemm", limit_s, len(cases))
    rows = []
    for m, n, k in cases:
        if not clock.next():
            break
        rows.append(
            {
                "gpu": gpu_name(),
                "engine": "torch",
                "version": str(torch.__version__),
                "kernel": "torch.mm",
                "operands": "random",
                "dtype": "bf16",
                "m": m,
                "n": n,
                "k": k,
                "time_ms": 1e3 * gemm_s(m, n, k),
            }
        )
    write_rows(rows, out / "gemm.parquet")


def gemm_s(m: int, n: int, k: int) -> float:
    """Seconds of one ``[m, k] x [k, n]`` with random operands, outside the L2 cache if they are."""
    set_bytes = 2 * (m * k + n * k + m * n)
    room = torch.cuda.get_device_properties(0).total_memory / 4
    copies = max(1, min(OPERAND_SETS, int(room // set_bytes)))
    tokens = [torch.randn(m, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    results = [torch.empty(m, n, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]

    def call(index: int) -> None:
        torch.mm(tokens[index], weights[index].t(), out=results[index])

    return call_s(call, copies)
