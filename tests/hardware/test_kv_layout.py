"""How the KV cache is laid out: what vLLM 0.32 answers for layers of published models.

The figures were taken from vLLM's own code; `tests.engines.test_vllm_layout` asks it anew.
"""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layer import KvLayer
from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import KvGroup, KvLayout, kv_layout
from blendplan.hardware.layers import Attention, FeedForward, Layer, State
from blendplan.hardware.lookup import model_spec
from blendplan.hardware.model import ModelSpec
from tests.hardware.layer_lists import (
    LATENT,
    MODELS,
    attention,
    random_layers,
    repeated,
    state,
)

GIB_40 = 40 * 2**30


@pytest.mark.parametrize(
    ("name", "groups", "block_bytes", "blocks"),
    [
        ("gemma-3-27b", [9, 9, 9, 9, 8, 8, 10], 1_310_720, 32_768),
        ("gemma-3-12b", [8] * 6, 1_048_576, 40_960),
        ("gemma-3-4b", [5, 5, 5, 5, 5, 4, 5], 327_680, 131_072),
        ("gpt-oss-20b", [12, 12], 393_216, 109_226),
        ("gpt-oss-120b", [18, 18], 589_824, 72_817),
        ("olmo-3.1-32b", [16] * 4, 1_048_576, 40_960),
        ("gemma-4-26b", [5] * 6, 655_360, 65_536),
        ("qwen3-next-80b", [12] * 4, 12 * 1_114_112, 3_212),
        ("nemotron-3-nano-30b", [6, 6, 6, 5, 6], 6 * 2_146_304, 3_335),
        ("jamba-1.5-mini", [4] * 8, 1_310_720, 32_768),
        ("llama-4-scout", [12] * 4, 786_432, 54_613),
    ],
)
def test_groups_blocks_and_bytes(
    name: str, groups: list[int], block_bytes: int, blocks: int
) -> None:
    layout = kv_layout(MODELS[name])
    assert [group.layers for group in layout.groups] == groups
    assert layout.bytes_per_block == block_bytes
    assert GIB_40 // layout.bytes_per_block == blocks
    # One block is a placeholder.
    assert layout.blocks(GIB_40) == blocks - (not layout.plain)


@pytest.mark.parametrize(
    ("name", "tokens", "page"),
    [
        ("qwen3-next-80b", 544, 1_114_112),
        ("nemotron-3-nano-30b", 2096, 2_146_304),
        ("jamba-1.5-mini", 80, 327_680),
    ],
)
def test_a_block_holds_a_state(name: str, tokens: int, page: int) -> None:
    layout = kv_layout(MODELS[name])
    assert {group.block_tokens for group in layout.groups} == {tokens}
    assert {group.page_bytes // group.layers for group in layout.groups} == {page}
    largest = max(layer.state_bytes for layer in MODELS[name])
    assert largest <= page


def test_a_float32_state_doubles_the_block() -> None:
    layers = repeated([state(524_288, 4, conv=24_576)] * 3 + [attention(2, 256)], 48)
    layout = kv_layout(layers)
    assert (layout.block_tokens, layout.bytes_per_block) == (1056, 12 * 2_162_688)


def test_a_block_size_is_only_ever_raised() -> None:
    assert kv_layout(MODELS["jamba-1.5-mini"], 128).block_tokens == 128
    assert kv_layout(MODELS["jamba-1.5-mini"], 64).block_tokens == 128
    assert kv_layout(MODELS["kimi-linear-48b"]).block_tokens % 128 == 0


def test_without_the_hybrid_manager_all_tokens_are_kept() -> None:
    layers = MODELS["llama-4-scout"]
    assert [(group.kind, group.layers) for group in kv_layout(layers).groups] == [
        *[("chunked", 12)] * 3,
        ("full", 12),
    ]
    off = kv_layout(layers, hybrid=False)
    assert off.plain
    assert (off.bytes_per_block, GIB_40 // off.bytes_per_block) == (3_145_728, 13_653)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mistral-7b-v0.1", "sliding"), ("falcon-mamba-7b", "state"), ("deepseek-v2-lite", "full")],
)
def test_layers_of_one_kind_are_one_group(name: str, kind: str) -> None:
    layout = kv_layout(MODELS[name])
    assert [group.kind for group in layout.groups] == [kind]
    assert layout.block_tokens == 16
    assert layout.growth == (kind == "full")


def test_full_attention_of_several_sizes_is_one_group() -> None:
    layout = kv_layout(MODELS["deepseek-v3.2"])
    assert layout.plain
    assert layout.bytes_per_block == 61 * 16 * (1152 + 132)


def test_pages_that_no_factor_makes_equal_are_padded() -> None:
    layout = kv_layout([attention(3, 64), attention(2, 64, window=64)])
    assert [group.page_bytes for group in layout.groups] == [3 * 64 * 4 * 16] * 2
    assert [group.block_tokens for group in layout.groups] == [16, 16]


def test_latent_attention_takes_no_padding() -> None:
    # Its page is no divisor: windows are stored for all tokens.
    layout = kv_layout([LATENT, attention(5, 64, window=64)])
    assert layout.plain and layout.groups[0].layers == 2
    with pytest.raises(BlendplanError, match="pages of 18432 and"):
        kv_layout([LATENT, KvLayer("chunked", 1280, reach=64)])


def test_blocks_that_the_logged_size_counts() -> None:
    """`get_kv_cache_capacity` of gemma-3-27b in 40 GiB, asynchronously scheduled."""
    layout = kv_layout(MODELS["gemma-3-27b"])
    for longest, batched, needed, logged in [
        (131_072, 16_384, 8192 + 6 * 2113, 205_796),
        (131_072, 8_192, 8192 + 6 * 1089, 291_658),
        (8_192, 16_384, 512 + 6 * 513, 74_773),
    ]:
        limited = layout.limited(in_flight_tokens=2 * batched, max_model_len=longest)
        caps = [group.most_blocks or -(-longest // group.block_tokens) for group in limited.groups]
        assert sum(caps) == needed
        assert int(32_768 / needed * longest) == logged


def test_what_a_decoding_request_holds() -> None:
    layout = kv_layout(MODELS["gemma-3-27b"])
    # The window of 1024 tokens starts on a boundary of a block, and in the middle of one.
    assert layout.held_blocks(8192) == 512 + 6 * 64
    assert layout.held_blocks(8193) == 513 + 6 * 65
    assert layout.held_tokens(8193) == 8193 + 6 * 1024
    assert layout.kv_bytes(8192) == 896 * 1_310_720
    assert layout.growth == 1
    states = kv_layout(MODELS["qwen3-next-80b"])
    assert states.held_tokens(10_000) == 10_000 + 3 * 544
    assert states.held_blocks(10_000) == 19 + 3


@given(st.integers(0, 10**9), st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_slots_are_blocks_without_rounding(seed: int, tokens: list[int]) -> None:
    draws = random.Random(seed)
    try:
        layout = kv_layout(random_layers(draws), draws.choice([1, 16, 32]), kernel_tokens=16)
    except BlendplanError:
        return
    n = np.array(tokens, dtype=np.int64)
    slots, blocks = layout.held_tokens(n), layout.held_blocks(n) * layout.block_tokens
    assert slots.tolist() == [layout.held_tokens(each) for each in tokens]
    assert np.all(slots <= blocks)
    # Every group rounds up at the end, and a window that begins inside a block at the front too.
    assert np.all(blocks - slots < 2 * layout.block_tokens * len(layout.groups))
    limited = layout.limited(in_flight_tokens=64, max_model_len=10_000)
    assert np.all(limited.held_blocks(n) <= limited.needed_blocks(n))
    assert np.all(limited.needed_blocks(n) <= layout.needed_blocks(n))
    assert KvLayout.from_metadata("layout", limited.as_metadata()) == limited


@given(st.integers(0, 10**9), st.integers(0, 3000))
def test_longest_request_is_the_longest(seed: int, blocks: int) -> None:
    try:
        layout = kv_layout(random_layers(random.Random(seed)))
    except BlendplanError:
        return
    layout = layout.limited(in_flight_tokens=64, max_model_len=100_000)
    longest = layout.longest_request(blocks)
    assert longest == 0 or layout.needed_blocks(longest) <= blocks
    if longest < 2**53:
        assert layout.needed_blocks(longest + 1) > blocks


def test_one_full_group_counts_tokens() -> None:
    layout = kv_layout(MODELS["llama-3.1-8b"])
    assert layout.plain
    assert layout.held_tokens(np.array([1, 17, 4000])).tolist() == [1, 17, 4000]
    assert layout.longest_request(10) == 160
    assert layout.limited(in_flight_tokens=8192, max_model_len=100) == layout


@pytest.mark.parametrize(
    "layer",
    [
        {"kind": "half", "bytes_per_token": 4},
        {"kind": "full", "bytes_per_token": 0},
        {"kind": "state", "bytes_per_token": 4},
        {"kind": "sliding", "bytes_per_token": 4},
        {"kind": "full", "bytes_per_token": 4, "reach": 3},
    ],
)
def test_a_layer_that_makes_no_sense_is_refused(layer: dict[str, int]) -> None:
    with pytest.raises(BlendplanError, match="layer"):
        KvLayer(**layer)  # type: ignore[arg-type]


def test_a_model_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(BlendplanError, match="no layer"):
        kv_layout([])


def test_states_need_the_hybrid_manager() -> None:
    with pytest.raises(BlendplanError, match="hybrid KV cache manager"):
        kv_layout(MODELS["jamba-1.5-mini"], hybrid=False)


@pytest.mark.parametrize(
    "groups",
    [
        None,
        [],
        [1],
        [{}],
        [{**KvGroup("full", 1, 0, 16, 64).__dict__, "kind": "none"}],
        [{**KvGroup("full", 1, 0, 16, 64).__dict__, "block_tokens": 0}],
        [{**KvGroup("full", 1, 0, 16, 64).__dict__, "layers": 1.5}],
        [{**KvGroup("sliding", 1, 0, 16, 64).__dict__}],
        [{**KvGroup("full", 1, 0, 16, 64).__dict__, "other": 1}],
        [{**KvGroup("full", 1, 0, 16, 64).__dict__, "bucket": 1}],
        [KvGroup("full", 1, 0, 16, 64).__dict__, KvGroup("full", 1, 0, 32, 64).__dict__],
    ],
)
def test_bad_metadata_is_refused(groups: object) -> None:
    with pytest.raises(BlendplanError, match=r"^engine\.kv_groups"):
        KvLayout.from_metadata("engine.kv_groups", groups)


def test_buckets_tell_equal_layers() -> None:
    layers = [attention(4, 64), attention(2, 128), attention(4, 64, window=64)]
    assert [group.bucket for group in kv_layout(layers).groups] == [0, 1, 2]
    assert [group.bucket for group in kv_layout(MODELS["gemma-3-4b"]).groups] == [0] * 6 + [1]


def spec(*mixers: tuple[Attention | State, ...]) -> ModelSpec:
    """A model with these mixers in its layers."""
    layers = tuple(Layer(each, FeedForward(64)) for each in mixers)
    return ModelSpec("some", 64, 100, 1000, layers)


def test_layers_of_a_model() -> None:
    full, window = Attention(8, 4, 16, 16), Attention(8, 4, 16, 16, window=9)
    layers = kv_layers(spec((window,), (full,), (Attention(8, 4, 16, 16, shares_kv=True),), ()))
    assert [(each.kind, each.bytes_per_token, each.reach) for each in layers] == [
        ("sliding", 4 * 32 * 2, 9),
        ("full", 4 * 32 * 2, 0),
    ]
    divided = kv_layers(spec((full,), (Attention(8, 4, 16, 16, chunk=8),)), tp=8, kv_dtype="fp8")
    assert [(each.kind, each.bytes_per_token) for each in divided] == [
        ("full", 32),
        ("chunked", 32),
    ]


def test_two_mixers_keep_two_things() -> None:
    state = State("mamba2", conv_elements=10, state_elements=100, heads=2, state_bits=32.0)
    attention = Attention(8, 4, 16, 16)
    layers = kv_layers(spec((attention, state)), tp=2)
    assert [each.kind for each in layers] == ["full", "state"]
    assert layers[1].state_bytes == (10 * 2 + 100 * 4) // 2
    assert layers[1].checkpoint_tokens == 1


def test_latent_attention_is_on_every_gpu() -> None:
    sparse = Attention(16, 16, 128, 128, latent=512, rope_dim=64, indexer_heads=4, indexer_dim=128)
    for tp in (1, 8):
        layers = kv_layers(spec((sparse,)), tp=tp)
        assert [each.bytes_per_token for each in layers] == [576 * 2, 132]
        assert kv_layout(layers).plain


def test_a_model_of_full_attention_has_as_many_bytes_per_token_as_it_says() -> None:
    for name in ("llama-3.1-8b", "deepseek-v3"):
        model = model_spec(name)
        layout = kv_layout(kv_layers(model), 16)
        assert layout.plain
        assert layout.bytes_per_block == 16 * model.kv_bytes_per_token()
