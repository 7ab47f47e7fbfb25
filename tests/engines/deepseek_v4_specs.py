"""What vLLM's own classes say that the layers of DeepSeek V4 keep."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from blendplan.hardware.layers import Attention
from blendplan.hardware.model import ModelSpec


def deepseek_v4_specs(config: Any, model: ModelSpec, dtype: str) -> dict[str, Any]:
    """Of every layer of a model that keeps something, in the order in which vLLM builds them.

    Args:
        config: vLLM's, whose KV dtype and block size are set as its attention layers set them.
        model: whose layers they are.
        dtype: ``fp8_ds_mla``, vLLM's default, or ``bfloat16``.
    """
    from vllm.config import set_current_vllm_config

    config.cache_config.cache_dtype = dtype
    config.cache_config.block_size = 256
    found: dict[str, Any] = {}
    with set_current_vllm_config(config):
        for number, layer in enumerate(model.layers):
            assert layer.attention is not None
            for name, cache in _caches(config, f"layers.{number}", layer.attention, dtype):
                spec = cache(config)
                if spec is not None:
                    found[name] = spec
    config.compilation_config.static_forward_context.clear()
    return found


def _caches(
    config: Any, prefix: str, attention: Attention, dtype: str
) -> Iterator[tuple[str, Any]]:
    """As `DeepseekV4Attention` and `DeepseekCompressor` make them, which need a GPU themselves."""
    import torch
    from vllm.models.deepseek_v4.attention import DeepseekV4Attention, DeepseekV4IndexerCache
    from vllm.models.deepseek_v4.compressor import CompressorStateCache
    from vllm.v1.attention.backends.mla.sparse_swa import DeepseekV4SWACache

    element = torch.uint8 if dtype == "fp8_ds_mla" else torch.bfloat16
    ratio = max(1, attention.compression)

    def state(dim: int, name: str) -> Any:
        overlap = 2 if ratio == 4 else 1
        made = CompressorStateCache(2 * overlap * dim, torch.float32, ratio, name)
        return made.get_kv_cache_spec

    if attention.indexer_heads:
        name = f"{prefix}.indexer.k_cache"
        width = attention.indexer_dim + attention.indexer_dim // 128 * 4
        keys = DeepseekV4IndexerCache(width, torch.uint8, name, config.cache_config, ratio)
        yield name, keys.get_kv_cache_spec
        name = f"{prefix}.indexer.compressor.state_cache"
        yield name, state(attention.indexer_dim, name)
    name = f"{prefix}.swa_cache"
    window = DeepseekV4SWACache(
        attention.key_dim, attention.window, element, name, config.cache_config
    )
    yield name, window.get_kv_cache_spec
    main = SimpleNamespace(
        compress_ratio=ratio,
        head_dim=attention.key_dim,
        kv_cache_dtype=dtype,
        kv_cache_torch_dtype=element,
    )
    yield prefix, lambda config: DeepseekV4Attention.get_kv_cache_spec(main, config)
    if ratio > 1:
        name = f"{prefix}.compressor.state_cache"
        yield name, state(attention.key_dim, name)
