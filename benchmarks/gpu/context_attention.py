"""Prefill attention times on this GPU: causal, with and without cached context."""

import random
from pathlib import Path

import torch
import torch.nn.functional as functional
from benchmarks.gpu.timing import Clock, call_s, gpu_name, write_rows
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

HEADS = ((32, 8), (64, 8), (8, 1), (32, 32), (28, 4))
BATCHES = (1, 2, 4, 8)
NEW_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
MOST_TOKENS = 32768
# (new tokens, cached tokens) of one sequence.
CACHED = tuple((new, cached) for new in (256, 512, 1024, 2048) for cached in (1024, 4096, 16384))
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def measure(out: Path, limit_s: float) -> None:
    """Time both backends; one that refuses a case is named and skipped."""
    plain = [(batch, new, 0) for batch in BATCHES for new in NEW_TOKENS]
    cases = [
        (backend, batch, new, cached, *heads)
        for backend in BACKENDS
        for heads in HEADS
        for batch, new, cached in plain + [(1, *pair) for pair in CACHED]
        if batch * new <= MOST_TOKENS and not (cached and backend == "cudnn")
    ]
    random.Random(0).shuffle(cases)
    clock = Clock("prefill", limit_s, len(cases))
    rows = []
    refused: dict[str, str] = {}
    for backend, batch, new, cached, heads, kv_heads in cases:
        if not clock.next():
            break
        try:
            time_s = attention_s(backend, batch, new, cached, heads, kv_heads)
        except RuntimeError as error:
            refused.setdefault(f"{backend} cached={cached > 0}", str(error).splitlines()[0])
            continue
        rows.append(
            {
                "gpu": gpu_name(),
                "engine": "torch",
                "version": str(torch.__version__),
                "kernel": f"sdpa_{backend}",
                "attn_dtype": "bf16",
                "kv_dtype": "bf16",
                "batch": batch,
                "seq_len": new,
                "cached_len": cached,
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": 128,
                "time_ms": 1e3 * time_s,
            }
        )
    for case, reason in refused.items():
        print(f"refused: {case}: {reason}", flush=True)
    write_rows(rows, out / "context_attention.parquet")


def attention_s(
    backend: str, batch: int, new: int, cached: int, heads: int, kv_heads: int
) -> float:
    """Seconds of one causal attention of ``new`` tokens after ``cached`` ones per sequence."""

    def random_(count: int, tokens: int) -> torch.Tensor:
        return torch.randn(batch, count, tokens, 128, device="cuda", dtype=torch.bfloat16)

    query = random_(heads, new)
    key, value = random_(kv_heads, new + cached), random_(kv_heads, new + cached)
    bias = causal_lower_right(new, new + cached) if cached else None

    def call(_: int) -> None:
        functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=bias is None, enable_gqa=heads != kv_heads
        )

    with sdpa_kernel(BACKENDS[backend]):
        return call_s(call, 1)
