"""Paged decode attention times on this GPU."""

import random
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarks.gpu.paged_decode import PagedDecode
from benchmarks.gpu.timing import Clock, call_s, gpu_name, write_rows

# (query heads, KV heads) on one GPU: Llama-3 8B and 70B and their shards, MHA, Qwen-2.5-7B.
HEADS = ((32, 8), (64, 8), (16, 4), (8, 2), (8, 1), (32, 32), (28, 4))
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
MOST_KV_BYTES = 12e9


def measure(out: Path, limit_s: float) -> None:
    """Check the kernel against plain attention, then time it in random order."""
    sm_count = torch.cuda.get_device_properties(0).multi_processor_count
    for heads, kv_heads in HEADS:
        error = PagedDecode(3, 1000, heads, kv_heads, sm_count=sm_count).error()
        if not error < 0.02:
            raise ArithmeticError(f"paged decode is wrong by {error} at {heads}/{kv_heads} heads")
    cases = [
        (batch, context, *heads)
        for heads in HEADS
        for batch in BATCHES
        for context in CONTEXTS
        if 4 * batch * context * heads[1] * 128 <= MOST_KV_BYTES
    ]
    random.Random(0).shuffle(cases)
    clock = Clock("decode", limit_s, len(cases))
    rows = []
    for batch, context, heads, kv_heads in cases:
        if not clock.next():
            break
        # Several caches in turn, as the layers of a model have their own.
        kv_bytes = 4 * batch * context * kv_heads * 128
        copies = max(1, min(8, int(200e6 // kv_bytes) + 1))
        calls = [
            PagedDecode(batch, context, heads, kv_heads, sm_count=sm_count) for _ in range(copies)
        ]
        rows.append(
            {
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
                "head_dim": 128,
                "time_ms": 1e3 * call_s(_in_turn(calls), copies),
            }
        )
    write_rows(rows, out / "decode_attention.parquet")


def _in_turn(calls: list[PagedDecode]) -> Callable[[int], None]:
    return lambda index: calls[index]()
