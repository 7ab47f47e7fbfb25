"""bf16 GEMM times of the shapes of real models, and of a grid, on this GPU."""

from pathlib import Path

import torch

from blendplan.cost.operators.gemm import OPERAND_SETS
from blendplan.proving.gpu.cases import Row, measured, write_rows
from blendplan.proving.gpu.machine import gpu_name
from blendplan.proving.gpu.timing import call_s

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
# Operands that are many times the L2 cache evict themselves; more copies only take time.
COLD_L2 = 8.0
UNKNOWN_L2_BYTES = 256e6


def cases() -> list[tuple[int, int, int]]:
    """(m, n, k) of everything that is worth measuring."""
    shapes = sorted({shape for group in SHAPES.values() for shape in group})
    return [(m, n, k) for n, k in shapes for m in TOKENS]


def measure(out: Path, limit_s: float) -> None:
    """Time all shapes."""
    write_rows(measured("gemm", limit_s, cases(), _row), out / "gemm.parquet")


def _row(case: tuple[int, int, int]) -> Row:
    m, n, k = case
    return {
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


def gemm_s(m: int, n: int, k: int) -> float:
    """Seconds of one ``[m, k] x [k, n]`` with random operands, outside the L2 cache if they are."""
    properties = torch.cuda.get_device_properties(0)
    l2_bytes = getattr(properties, "L2_cache_size", None) or UNKNOWN_L2_BYTES
    copies = operand_copies(m, n, k, l2_bytes, properties.total_memory)
    tokens = [torch.randn(m, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    results = [torch.empty(m, n, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]

    def call(index: int) -> None:
        torch.mm(tokens[index], weights[index].t(), out=results[index])

    return call_s(call, copies)


def operand_copies(m: int, n: int, k: int, l2_bytes: float, memory_bytes: float) -> int:
    """Sets of operands to use in turn, as layers do: as many as it takes to be out of L2.

    At most as many as the fit assumes; where those fit in L2, all of them.
    """
    set_bytes = 2 * (m * k + n * k + m * n)
    enough = int(COLD_L2 * l2_bytes // set_bytes) + 1
    room = int(memory_bytes / 4 // set_bytes)
    return max(1, min(OPERAND_SETS, enough, room))
