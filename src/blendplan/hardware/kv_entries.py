"""`entry_bytes`: bytes of one entry of the KV cache: what is kept of a token, or of a few together.

In fp8, engines keep more than a byte per element of latent attention whose tokens are chosen: the
part with the rotary embedding stays in bf16, and groups of the rest have scales. Layouts of
FlashMLA as vLLM 0.32 has them (vllm/v1/attention/backends/mla/flashmla_sparse.py and
vllm/models/deepseek_v4/attention.py, ``fp8_ds_mla``).
"""

from blendplan.hardware.layers import Attention
from blendplan.hardware.linear_shapes import kv_heads_per_gpu

FP8_BITS = 8.0
# DeepSeek V3.2: a scale of 4 bytes for 128 elements. V4: one byte for 64, in words of 8 bytes.
_LATENT_GROUP, _LATENT_SCALE_BYTES = 128, 4
_PACKED_GROUP, _PACKED_SCALES = 64, 8
# `DeepseekV32IndexerCache` in vllm/model_executor/models/deepseek_v2.py; V4 and GLM-5 do the same.
_INDEXER_SCALE_BYTES = 4


def entry_bytes(attention: Attention, bits: float, tp: int = 1) -> float:
    """Bytes that one GPU keeps of an entry in one layer, also where an earlier layer keeps it.

    Args:
        attention: of the layer.
        bits: per element of the KV cache.
        tp: GPUs that share the layer. With fewer KV heads than GPUs, heads are replicated; a latent
            vector is on all of them.
    """
    rope = attention.rope_dim
    if attention.packed and bits == FP8_BITS:
        scaled = attention.key_dim - rope
        scales = _ceil(_ceil(scaled, _PACKED_GROUP), _PACKED_SCALES) * _PACKED_SCALES
        return float(scaled + scales + 2 * rope)
    if attention.latent and attention.top_k and bits == FP8_BITS:
        scales = _ceil(attention.latent, _LATENT_GROUP) * _LATENT_SCALE_BYTES
        return float(attention.latent + scales + 2 * rope)
    if attention.latent:
        return (attention.latent + rope) * bits / 8
    per_head = attention.key_dim + (0 if attention.kept_once else attention.value_dim)
    return kv_heads_per_gpu(attention, tp) * per_head * bits / 8


def indexer_key_bytes(attention: Attention) -> int:
    """Bytes of a key by which an indexer chooses tokens: fp8 with one scale."""
    return attention.indexer_dim + _INDEXER_SCALE_BYTES


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
