"""What compressed attention keeps of a request: a window, the history in fewer vectors, and states.

The sizes are those of DeepSeek V4 in vLLM 0.32: vllm/models/deepseek_v4/attention.py
(`DeepseekV4Attention.get_kv_cache_spec`, `DeepseekV4IndexerCache`), compressor.py
(`CompressorStateCache`) and vllm/v1/attention/backends/mla/sparse_swa.py (`DeepseekV4SWACache`).
Kernels fix the tokens of every page, whatever block size was asked for. Nothing is split over GPUs.
"""

from blendplan.hardware.kv_entries import FP8_BITS, entry_bytes, indexer_key_bytes
from blendplan.hardware.kv_layer import FULL, SLIDING, KvLayer
from blendplan.hardware.layers import Attention

BLOCK_TOKENS = 256
WINDOW_BLOCK_TOKENS = 64
# A compressor looks at the span at hand, and where few tokens become one, at the one before it.
OVERLAPPING = 4
_STATE_BLOCK_TOKENS, _OVERLAPPING_STATE_BLOCK_TOKENS = 8, 4
_STATE_ELEMENT_BYTES = 4
# Pages are whole multiples of what the kernels load at once: of the fp8 layout, or of plain rows.
_FP8_ALIGNMENT, _PLAIN_ALIGNMENT = 576, 512


def compressed_layers(attention: Attention, bits: float) -> list[KvLayer]:
    """What one layer keeps, in the order in which vLLM knows it.

    Args:
        attention: with ``packed``.
        bits: per element of the KV cache; 8 for the layout of FlashMLA, the default, others for
            plain rows.
    """
    aligned = _FP8_ALIGNMENT if bits == FP8_BITS else _PLAIN_ALIGNMENT
    entry = int(entry_bytes(attention, bits))
    window = _paged(
        SLIDING, WINDOW_BLOCK_TOKENS, WINDOW_BLOCK_TOKENS * entry, aligned, attention.window
    )
    if not attention.compression:
        return [window]
    entries = max(1, BLOCK_TOKENS // attention.compression)
    history = _paged(FULL, BLOCK_TOKENS, entries * entry, aligned)
    state = _state(attention, attention.key_dim, aligned)
    if not attention.indexer_heads:
        return [window, history, state]
    keys = _paged(FULL, BLOCK_TOKENS, entries * indexer_key_bytes(attention), aligned)
    of_keys = _state(attention, attention.indexer_dim, aligned)
    return [keys, of_keys, window, history, state]


def _state(attention: Attention, dim: int, aligned: int) -> KvLayer:
    """The last tokens of a compressor: of each, keys and scores in float32."""
    spans = 2 if attention.compression <= OVERLAPPING else 1
    tokens = _OVERLAPPING_STATE_BLOCK_TOKENS if spans == 2 else _STATE_BLOCK_TOKENS
    size = tokens * 2 * spans * dim * _STATE_ELEMENT_BYTES
    return _paged(SLIDING, tokens, size, aligned, spans * attention.compression)


def _paged(kind: str, tokens: int, size: int, aligned: int, reach: int = 0) -> KvLayer:
    page = -(-size // aligned) * aligned
    per_token = -(-page // tokens)
    return KvLayer(kind, per_token, reach=reach, latent=True, block_tokens=tokens, page_bytes=page)
