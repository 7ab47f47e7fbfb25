"""Paged decode attention times on this GPU."""

from collections.abc import Callable
from pathlib import Path

import torch

from blendplan.cost.calibration.kernel_tables import L2_MARGIN
from blendplan.proving.gpu.cases import Row, measured, write_rows
from blendplan.proving.gpu.machine import gpu_name
from blendplan.proving.gpu.paged_decode import PagedDecode
from blendplan.proving.gpu.timing import call_s

# (query heads, KV heads) on one GPU: Llama-3 8B and 70B and their shards, MHA, Qwen-2.5-7B.
HEADS = ((32, 8), (64, 8), (16, 4), (8, 2), (8, 1), (32, 32), (28, 4))
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
HEAD_DIM = 128
MOST_KV_BYTES = 12e9
MOST_MEMORY_SHARE = 0.4
WORST_ERROR = 0.02
# Caches to use in turn reach this far, so that none stays in L2.
COPIES_BYTES = 200e6

Case = tuple[int, int, int, int]


def cases(l2_bytes: float, memory_bytes: float) -> list[Case]:
    """(batch, context, heads, KV heads) of caches that do not fit in L2, but in memory."""
    least = L2_MARGIN * l2_bytes
    most = min(MOST_KV_BYTES, MOST_MEMORY_SHARE * memory_bytes)
    return [
        (batch, context, *heads)
        for heads in HEADS
        for batch in BATCHES
        for context in CONTEXTS
        if least < _kv_bytes(batch, context, heads[1]) <= most
    ]


def measure(out: Path, limit_s: float) -> None:
    """Check the kernel against plain attention, then time it."""
    properties = torch.cuda.get_device_properties(0)
    sm_count = properties.multi_processor_count
    for heads, kv_heads in HEADS:
        error = PagedDecode(3, 1000, heads, kv_heads, sm_count=sm_count).error()
        if not error < WORST_ERROR:
            raise ArithmeticError(f"paged decode is wrong by {error} at {heads}/{kv_heads} heads")
    chosen = cases(getattr(properties, "L2_cache_size", None) or 0, properties.total_memory)
    rows = measured("decode", limit_s, chosen, lambda case: _row(case, sm_count))
    write_rows(rows, out / "decode_attention.parquet")


def _row(case: Case, sm_count: int) -> Row:
    batch, context, heads, kv_heads = case
    # Several caches in turn, as the layers of a model have their own.
    copies = int(COPIES_BYTES // _kv_bytes(batch, context, kv_heads)) + 1
    calls = [PagedDecode(batch, context, heads, kv_heads, sm_count=sm_count) for _ in range(copies)]
    return {
        "gpu": gpu_name(),
        "engine": "triton",
        "version": str(torch.__version__),
        "kernel": "paged_split_kv",
        "attn_dtype": "bf16",
        "kv_dtype": "bf16",
        "batch": batch,
        "ctx_len": context,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": HEAD_DIM,
        "time_ms": 1e3 * call_s(_in_turn(calls), copies),
    }


def _kv_bytes(batch: int, context: int, kv_heads: int) -> int:
    return 2 * 2 * batch * context * kv_heads * HEAD_DIM


def _in_turn(calls: list[PagedDecode]) -> Callable[[int], None]:
    return lambda index: calls[index]()
