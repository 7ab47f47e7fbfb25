"""Layers of `blendplan.hardware.kv_layer` in vLLM's own words, and vLLM's groups of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blendplan.hardware.kv_layer import CHUNKED, FULL, SLIDING, STATE, KvLayer
from blendplan.hardware.kv_layout import KvGroup


def engine_config(model: Path, **arguments: Any) -> Any:
    """vLLM's configuration for a model folder, with the memory layout of most GPUs' kernels."""
    from vllm import EngineArgs

    config = EngineArgs(
        model=str(model),
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=True,
        disable_log_stats=True,
        **arguments,
    ).create_engine_config()
    config.cache_config.kv_cache_layout = "LBHNC"
    config.cache_config.mamba_cache_mode = "align"  # as in a model with states
    return config


def vllm_spec(layer: KvLayer, tokens: int, state_page: int | None) -> Any:
    """One layer as vLLM describes it, with a block of so many tokens.

    Elements are bytes; the shape of attention is its heads, and the bytes of its values.
    """
    import torch
    from vllm.v1.kv_cache_interface import (
        ChunkedLocalAttentionSpec,
        FullAttentionSpec,
        MambaSpec,
        MLAAttentionSpec,
        SlidingWindowSpec,
    )

    if layer.page_bytes:
        return _paged_spec(layer)
    if layer.kind == STATE:
        return MambaSpec(
            block_size=tokens,
            shapes=((layer.state_bytes,),),
            dtypes=(torch.int8,),
            page_size_padded=state_page,
            mamba_cache_mode="align",
            num_prefill_checkpoint_blocks=int(layer.checkpoint_tokens > 0),
            prefill_checkpoint_alignment=layer.checkpoint_tokens or None,
        )
    if layer.latent:
        return MLAAttentionSpec(
            block_size=tokens, num_kv_heads=1, head_size=layer.bytes_per_token, dtype=torch.int8
        )
    heads, value = layer.shape
    sizes = {
        "block_size": tokens,
        "num_kv_heads": heads,
        "head_size": (layer.bytes_per_token - value) // heads,
        "head_size_v": value // heads,
        "dtype": torch.int8,
    }
    if layer.kind == SLIDING:
        return SlidingWindowSpec(sliding_window=layer.reach, **sizes)
    if layer.kind == CHUNKED:
        return ChunkedLocalAttentionSpec(attention_chunk_size=layer.reach, **sizes)
    return FullAttentionSpec(**sizes)


def _paged_spec(layer: KvLayer) -> Any:
    """A layer with a page of its own, an entry of which is a byte."""
    import torch
    from vllm.v1.kv_cache_interface import MLAAttentionSpec, SlidingWindowMLASpec

    sizes: dict[str, Any] = {
        "block_size": layer.block_tokens,
        "num_kv_heads": 1,
        "head_size": 1,
        "dtype": torch.int8,
        "page_size_padded": layer.page_bytes,
    }
    if layer.kind == SLIDING:
        return SlidingWindowMLASpec(sliding_window=layer.reach, **sizes)
    return MLAAttentionSpec(**sizes)


def vllm_specs(config: Any, layers: Sequence[KvLayer]) -> dict[str, Any]:
    """These layers as vLLM describes them, by name."""
    tokens, state_page = _aligned(int(config.cache_config.block_size), layers)
    return {
        f"layers.{number}": vllm_spec(layer, tokens, state_page)
        for number, layer in enumerate(layers)
    }


def vllm_groups(config: Any, specs: dict[str, Any]) -> list[Any]:
    """vLLM's groups of layers as it describes them."""
    from vllm.v1.core.kv_cache_utils import get_kv_cache_groups

    groups: list[Any] = get_kv_cache_groups(config, specs)
    return groups


def _aligned(block_size: int, layers: Sequence[KvLayer]) -> tuple[int, int | None]:
    """Tokens of a block before pages are made equal, and the page of a state beside attention.

    vLLM works it out from a model's class (`_align_hybrid_block_size`, vllm/platforms/interface.py)
    and calls none of this for a list of layers.
    """
    attention = [layer for layer in layers if layer.kind != STATE]
    states = [layer.state_bytes for layer in layers if layer.kind == STATE]
    if not attention or not states:
        return block_size, None
    step = max(block_size, 16, 128 if attention[0].latent else 0)
    tokens = step
    while tokens * attention[0].bytes_per_token < max(states):
        tokens += step
    return tokens, tokens * attention[0].bytes_per_token


def as_group(config: Any, group: Any) -> KvGroup:
    """What a group of vLLM's is here, but for its bucket."""
    from vllm.v1.core.kv_cache_utils import _get_kv_cache_bytes_per_block
    from vllm.v1.kv_cache_interface import UniformTypeKVCacheSpecs

    spec = group.kv_cache_spec
    if isinstance(spec, UniformTypeKVCacheSpecs):
        spec = spec.first_spec
    kinds = {
        "SlidingWindowSpec": SLIDING,
        "SlidingWindowMLASpec": SLIDING,
        "ChunkedLocalAttentionSpec": CHUNKED,
        "MambaSpec": STATE,
    }
    kind = kinds.get(type(spec).__name__, FULL)
    reaches = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}
    layout = config.cache_config.get_resolved_kv_cache_layout()
    return KvGroup(
        kind=kind,
        layers=len(group.layer_names),
        reach=getattr(spec, reaches[kind]) if kind in reaches else 0,
        block_tokens=spec.block_size,
        page_bytes=_get_kv_cache_bytes_per_block([group], layout),
        checkpoint_tokens=getattr(spec, "prefill_checkpoint_alignment", None) or 0,
    )
