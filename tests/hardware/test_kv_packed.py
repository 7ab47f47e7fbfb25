"""Pages of different sizes in one block: sizes of DeepSeek V4 by hand, and rules of groups.

`tests.engines.test_vllm_layout` asks vLLM's own classes and code.
"""

import random
from dataclasses import replace

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layer import KvLayer
from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import KvLayout, kv_layout
from blendplan.hardware.layers import Attention, FeedForward, Layer
from blendplan.hardware.lookup import model_spec
from blendplan.hardware.model import ModelSpec
from tests.hardware.layer_lists import attention, random_paged_layers, state

WINDOW = Attention(8, 1, 512, 512, window=128, rope_dim=64, kept_once=True, packed=True)
HEAVY = replace(WINDOW, compression=128)
LIGHT = replace(WINDOW, compression=4, top_k=512, indexer_heads=64, indexer_dim=128)


def model(*attentions: Attention) -> ModelSpec:
    layers = tuple(Layer((each,), FeedForward(64)) for each in attentions)
    return ModelSpec("some", 64, 100, 1000, layers, kv_bits=8.0)


def pages(layers: list[KvLayer]) -> list[tuple[str, int, int, int]]:
    return [(each.kind, each.reach, each.block_tokens, each.page_bytes) for each in layers]


@pytest.mark.parametrize("tp", [1, 8])
def test_what_a_layer_of_deepseek_v4_keeps(tp: int) -> None:
    # 448 bytes of fp8, 64 elements of bf16 and 8 of scales; pages of whole 576 bytes.
    window = ("sliding", 128, 64, 65 * 576)
    assert 64 * 584 <= 65 * 576 < 64 * 584 + 576
    assert pages(kv_layers(model(WINDOW), tp=tp)) == [window]
    assert pages(kv_layers(model(HEAVY), tp=tp)) == [
        window,
        ("full", 0, 256, 3 * 576),  # two entries
        ("sliding", 128, 8, 57 * 576),  # 8 tokens of 2 x 512 numbers of 4 bytes
    ]
    assert pages(kv_layers(model(LIGHT), tp=tp)) == [
        ("full", 0, 256, 15 * 576),  # 64 keys of 132 bytes
        ("sliding", 8, 4, 15 * 576),  # 4 tokens of 2 x 2 x 128 numbers
        window,
        ("full", 0, 256, 65 * 576),  # 64 entries
        ("sliding", 8, 4, 57 * 576),
    ]


def test_plain_rows_take_two_bytes_an_element() -> None:
    assert pages(kv_layers(model(HEAVY), kv_dtype="bf16")) == [
        ("sliding", 128, 64, 64 * 1024),
        ("full", 0, 256, 2 * 1024),
        ("sliding", 128, 8, 64 * 512),
    ]


def as_rows(layout: KvLayout) -> list[tuple[str, int, int, int, int]]:
    return [(g.kind, g.layers, g.reach, g.block_tokens, g.bucket) for g in layout.groups]


def test_layout_of_deepseek_v4_pro() -> None:
    layout = kv_layout(kv_layers(model_spec("deepseek-v4-pro")), 16)
    assert as_rows(layout) == [
        ("sliding", 31, 128, 64, 0),
        ("sliding", 30, 128, 64, 0),
        ("full", 91, 0, 256, 1),
        ("sliding", 31, 128, 8, 2),
        ("sliding", 60, 8, 4, 3),
    ]
    assert layout.bytes_per_block == 30 * 37_440 + 30 * 8_640 + 31 * 1_728
    assert (layout.block_tokens, layout.hash_tokens, layout.growth) == (256, 4, 1)
    # Two blocks of each window, the state of 8 tokens in 2, that of 128 in 16, 4 of the history.
    assert layout.held_blocks(1024) == 2 * 2 + 2 + 16 + 4
    limited = layout.limited(in_flight_tokens=8192, max_model_len=2**20)
    # A prompt must find room for all that a step computes, in every group.
    assert limited.needed_blocks(8192) == 2 * 128 + 32 + 1024 + 2048
    assert limited.needed_blocks(2**20) == 2 * (8319 // 64 + 2) + 4096 + 1041 + 2051


def test_windows_share_blocks_with_what_needs_them_anyway() -> None:
    def paged(kind: str, reach: int, tokens: int, size: int) -> KvLayer:
        return KvLayer(kind, size, reach=reach, latent=True, block_tokens=tokens, page_bytes=size)

    full, window = paged("full", 0, 16, 1000), paged("sliding", 9, 4, 300)
    # A block of four full layers holds 13 windows; 20 are two groups.
    layout = kv_layout([full] * 4 + [window] * 20)
    assert [group.layers for group in layout.groups] == [4, 10, 10]
    assert layout.bytes_per_block == 4000
    # Full layers of two sizes, one of each at a time, stay together; windows are split to as many
    # or a few more, with the least to fill up.
    small = paged("full", 0, 16, 100)
    assert [g.layers for g in kv_layout([full, small] * 4 + [window] * 9).groups] == [8, 5, 4]
    assert [g.layers for g in kv_layout([full, small] * 4 + [window] * 12).groups] == [8, 4, 4, 4]
    assert [g.layers for g in kv_layout([window] * 3).groups] == [3]
    # Equal pages are put in groups as everywhere.
    assert [g.layers for g in kv_layout([full] * 2 + [replace(window, page_bytes=1000)] * 4).groups
            ] == [2, 2, 2]  # fmt: skip


def test_every_layer_is_in_one_group_that_fits_the_block() -> None:
    draws = random.Random(5)
    for _ in range(300):
        layers = random_paged_layers(draws)
        layout = kv_layout(layers)
        assert sum(group.layers for group in layout.groups) == len(layers)
        assert sum(g.page_bytes for g in layout.groups) == sum(each.page_bytes for each in layers)
        again = KvLayout.from_metadata("groups", layout.as_metadata())
        assert again == layout
        off = kv_layout(layers, hybrid=False)
        assert {group.kind for group in off.groups} == {"full"}


def test_what_no_packed_page_goes_with_is_refused() -> None:
    with pytest.raises(BlendplanError, match="states"):
        kv_layout([*kv_layers(model(HEAVY)), state(100)])
    with pytest.raises(BlendplanError, match="both or neither"):
        KvLayer("full", 8, block_tokens=16)
    with pytest.raises(BlendplanError, match="packed"):
        model(replace(HEAVY, packed=False))
    with pytest.raises(BlendplanError, match="window"):
        model(replace(WINDOW, window=0))
    # Layers whose kernels take any block stand beside them with the one that was asked for.
    beside = kv_layout([*kv_layers(model(HEAVY)), attention(2, 64)], 32)
    assert {group.block_tokens for group in beside.groups} == {64, 256, 8, 32}


@pytest.mark.parametrize(("dtype", "size"), [("auto", 1152), ("bf16", 1152), ("fp8", 656)])
def test_chosen_latent_tokens_keep_scales_in_fp8(dtype: str, size: int) -> None:
    layers = kv_layers(model_spec("deepseek-v3.2"), kv_dtype=dtype, tp=8)
    assert {layer.bytes_per_token for layer in layers} == {size, 132}
    dense = kv_layers(model_spec("deepseek-v3"), kv_dtype=dtype, tp=8)
    assert {layer.bytes_per_token for layer in dense} == {576 if dtype == "fp8" else 1152}
