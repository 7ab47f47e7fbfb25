"""The layout of the KV cache against vLLM's own code, which needs no GPU to work it out."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layer import KvLayer
from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import kv_layout
from blendplan.hardware.lookup import model_spec
from blendplan.hardware.model import ModelSpec
from tests.engines.deepseek_v4_specs import deepseek_v4_specs
from tests.engines.vllm_specs import as_group, engine_config, vllm_groups, vllm_specs
from tests.hardware.layer_lists import MODELS, random_layers, random_paged_layers

# Whatever the engine warns of is its own business.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def config(vllm: None, tiny_model: Path) -> Any:
    """vLLM's configuration; only what the block pool needs of it matters."""
    return engine_config(tiny_model, block_size=16)


def compare(
    config: Any, layers: list[KvLayer], hybrid: bool, specs: dict[str, Any] | None = None
) -> bool:
    """Compare the layouts; False where both refuse the layers.

    Without ``specs``, vLLM gets those that the layers say themselves.
    """
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_config_from_groups

    block_size = int(config.cache_config.block_size)
    config.scheduler_config.disable_hybrid_kv_cache_manager = not hybrid
    own = any(layer.page_bytes for layer in layers)
    config.cache_config.kv_cache_layout = "BLHNC" if own else "LBHNC"
    specs = vllm_specs(config, layers) if specs is None else specs
    try:
        layout = kv_layout(layers, block_size, hybrid=hybrid)
    except BlendplanError:
        with pytest.raises((NotImplementedError, ValueError, AssertionError)):
            vllm_groups(config, specs)
        return False
    groups = vllm_groups(config, specs)
    assert [as_group(config, group) for group in groups] == [
        replace(group, bucket=0) for group in layout.groups
    ]
    buckets = [group.bucket for group in layout.groups]
    assert buckets == sorted(buckets)
    available = 3 * 2**30 + 12345
    cache = get_kv_cache_config_from_groups(config, groups, available)
    assert cache.num_blocks == int(available // layout.bytes_per_block)
    assert layout.blocks(available) == cache.num_blocks - (not layout.plain)

    longest = int(config.model_config.max_model_len)
    limited = layout.limited(in_flight_tokens=config.max_in_flight_tokens, max_model_len=longest)
    tokens, concurrency = get_kv_cache_capacity(config, cache)
    needed = sum(group.most_blocks or -(-longest // group.block_tokens) for group in limited.groups)
    assert concurrency == pytest.approx(cache.num_blocks / needed)
    assert tokens == int(cache.num_blocks / needed * longest)
    return True


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hybrid", [True, False])
def test_groups_of_real_models(config: Any, name: str, hybrid: bool) -> None:
    compare(config, MODELS[name], hybrid)


def test_groups_of_random_layers(config: Any) -> None:
    draws = random.Random(7)
    compared = [
        compare(config, random_layers(draws), hybrid=draws.random() < 0.85) for _ in range(3000)
    ]
    assert 100 < sum(compared) < len(compared)


def test_groups_of_random_layers_with_pages_of_their_own(config: Any) -> None:
    draws = random.Random(3)
    for _ in range(400):
        assert compare(config, random_paged_layers(draws), hybrid=True)


@pytest.mark.parametrize("name", ["deepseek-v4-pro", "deepseek-v4-flash"])
@pytest.mark.parametrize(("asked", "dtype"), [("auto", "fp8_ds_mla"), ("bf16", "bfloat16")])
def test_deepseek_v4(vllm: None, tiny_model: Path, name: str, asked: str, dtype: str) -> None:
    compare_v4(tiny_model, model_spec(name), asked, dtype)


@pytest.mark.parametrize(
    "ratios",
    [
        [0],
        [4],
        [128],
        [0, 0],
        [0, 4],
        [0, 128],
        [4, 4, 128],
        [4, 128, 4, 128],
        [128] * 7 + [4],
        [0, 4, 4, 4, 128, 0],
    ],
)
def test_tiny_models_with_compressed_history(
    vllm: None, tiny_model: Path, ratios: list[int]
) -> None:
    flash = model_spec("deepseek-v4-flash")
    layers = {layer.attention.compression: layer for layer in flash.layers if layer.attention}
    model = replace(flash, layers=tuple(layers[ratio] for ratio in ratios))
    for asked, dtype in (("fp8", "fp8_ds_mla"), ("bf16", "bfloat16")):
        compare_v4(tiny_model, model, asked, dtype)


def compare_v4(folder: Path, model: ModelSpec, asked: str, dtype: str) -> None:
    config = engine_config(folder)
    specs = deepseek_v4_specs(config, model, dtype)
    layers = kv_layers(model, kv_dtype=asked, tp=8)
    assert compare(config, layers, hybrid=True, specs=specs)
