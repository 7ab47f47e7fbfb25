"""Prefill attention times on this GPU: causal, with and without cached context."""

from pathlib import Path

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from blendplan.proving.gpu.cases import Row, measured, write_rows
from blendplan.proving.gpu.machine import gpu_name
from blendplan.proving.gpu.timing import call_s

HEADS = ((32, 8), (64, 8), (8, 1), (32, 32), (28, 4))
BATCHES = (1, 2, 4, 8)
# Shorter prompts cost their launch more than anything else, and no fit uses them.
NEW_TOKENS = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384)
MOST_TOKENS = 32768
# (new tokens, cached tokens) of one sequence.
CACHED = tuple((new, cached) for new in (512, 1024, 2048, 4096) for cached in (1024, 4096, 16384))
HEAD_DIM = 128
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}

Case = tuple[str, int, int, int, int, int]


def cases() -> list[Case]:
    """(backend, batch, new tokens, cached tokens, heads, KV heads)."""
    plain = [
        (batch, new, 0) for batch in BATCHES for new in NEW_TOKENS if batch * new <= MOST_TOKENS
    ]
    return [
        (backend, *sizes, *heads)
        for backend in BACKENDS
        for heads in HEADS
        for sizes in plain + [(1, *pair) for pair in CACHED if backend == "flash"]
    ]


def measure(out: Path, limit_s: float) -> None:
    """Time both backends, as far as they take the cases."""
    rows = measured("prefill", limit_s, cases(), _row)
    write_rows(rows, out / "context_attention.parquet")


def _row(case: Case) -> Row:
    backend, batch, new, cached, heads, kv_heads = case
    return {
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
        "head_dim": HEAD_DIM,
        "time_ms": 1e3 * attention_s(*case),
    }


def attention_s(
    backend: str, batch: int, new: int, cached: int, heads: int, kv_heads: int
) -> float:
    """Seconds of one causal attention of ``new`` tokens after ``cached`` ones per sequence."""

    def random_(count: int, tokens: int) -> torch.Tensor:
        return torch.randn(batch, count, tokens, HEAD_DIM, device="cuda", dtype=torch.bfloat16)

    query = random_(heads, new)
    key, value = random_(kv_heads, new + cached), random_(kv_heads, new + cached)
    bias = causal_lower_right(new, new + cached) if cached else None

    def call(_: int) -> None:
        functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=bias is None, enable_gqa=heads != kv_heads
        )

    with sdpa_kernel(BACKENDS[backend]):
        return call_s(call, 1)
