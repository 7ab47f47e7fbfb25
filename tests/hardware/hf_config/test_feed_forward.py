"""Where experts are, how wide they are, and what stands beside them."""

from typing import Any

import pytest

from blendplan.hardware.layers import FeedForward
from tests.hardware.hf_config.configs import config, read

MOE: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "model_type": "qwen3_moe",
}


def moe_layers(**values: Any) -> list[int]:
    """Numbers of the layers with experts."""
    layers = read(config(**{**MOE, **values})).layers
    parts = [layer.feed_forward for layer in layers]
    return [number for number, part in enumerate(parts) if part is not None and part.experts]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, range(8)),
        ({"first_k_dense_replace": 3}, range(3, 8)),
        ({"num_dense_layers": 2}, range(2, 8)),
        ({"moe_layer_freq": [0, 0, 0, 1, 1, 1, 1, 1]}, range(3, 8)),
        ({"moe_layer_freq": 2, "first_k_dense_replace": 1}, [2, 4, 6]),
        ({"decoder_sparse_step": 2}, [1, 3, 5, 7]),
        ({"mlp_only_layers": [0, 5]}, [1, 2, 3, 4, 6, 7]),
        ({"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 6}, range(2, 8)),
        ({"expert_layer_period": 2, "expert_layer_offset": 1}, [1, 3, 5, 7]),
        ({"moe_layer_interval": 2, "moe_layer_start_index": 3, "moe_layer_end_index": -1},
         [3, 5, 7]),
        ({"moe_layers": [1, 4]}, [1, 4]),
        ({"moe_layers_enum": "2,3,7"}, [2, 3, 7]),
        ({"model_type": "llama4_text", "interleave_moe_layer_step": 2, "moe_layers": None,
          "attention_chunk_size": None}, [1, 3, 5, 7]),
        ({"num_experts": 0}, []),
        ({"num_experts": 1}, []),
        ({"enable_moe_block": False}, []),
    ],
)  # fmt: skip
def test_layers_with_experts(values: dict[str, Any], expected: list[int]) -> None:
    assert moe_layers(**values) == list(expected)


def part(**values: Any) -> FeedForward:
    """The last layer's."""
    found = read(config(**{**MOE, **values})).layers[-1].feed_forward
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("values", "shared"),
    [
        ({}, 0),
        ({"n_shared_experts": 2}, 64),
        ({"num_shared_experts": 3}, 96),
        ({"shared_expert_intermediate_size": 40}, 40),
        ({"moe_shared_expert_intermediate_size": 40, "n_shared_experts": 2}, 80),
        ({"share_expert_dim": 24}, 24),
        ({"model_type": "llama4_text", "attention_chunk_size": None, "intermediate_size": 48}, 48),
    ],
)
def test_shared_experts(values: dict[str, Any], shared: int) -> None:
    assert part(**values).shared_width == shared


@pytest.mark.parametrize(
    "name", ["num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"]
)
def test_experts_per_token_by_any_name(name: str) -> None:
    values = {"model_type": "new_kind", "num_experts_per_tok": None} | {name: 3}
    assert part(**values).experts_per_token == 3


def test_unknown_experts_per_token_are_remarked_on() -> None:
    model = read(config(num_experts=8, moe_intermediate_size=32, model_type="new_kind"))
    assert any("2 are assumed" in remark for remark in model.remarks)


@pytest.mark.parametrize("switch", ["enable_moe_block", "residual_moe"])
def test_dense_and_experts_in_one_layer(switch: str) -> None:
    found = part(**{switch: True})
    assert (found.width, found.experts, found.expert_width) == (96, 8, 32)


def test_experts_on_a_latent() -> None:
    assert part(moe_latent_size=16).latent == 16
    wide, narrow = (read(config(**MOE, **more)) for more in ({}, {"moe_latent_size": 16}))
    per_layer = 8 * 3 * 32 * (64 - 16) - 2 * 16 * 64
    assert wide.parameters - narrow.parameters == 8 * per_layer


def test_two_matrices() -> None:
    assert not part(model_type="nemotron", num_experts=0).gated
    assert not part(model_type="new_kind", mlp_hidden_act="relu2").gated
    assert part(model_type="llama").gated


def test_widths_by_layer() -> None:
    widths = [16, 32] * 4
    model = read(config(intermediate_size=widths))
    found = [layer.feed_forward.width for layer in model.layers if layer.feed_forward]
    assert found == widths
    lfm = read(config(model_type="lfm2", conv_L_cache=3, full_attn_idxs=[0],
                      block_auto_adjust_ff_dim=True, block_multiple_of=32))  # fmt: skip
    assert {p.width for p in lfm.feed_forwards} == {64}


@pytest.mark.parametrize(
    ("values", "width"),
    [
        ({"ffn_hidden_size": 48}, 48),
        ({"model_type": "phi3small", "ff_intermediate_size": 48}, 48),
        ({"model_type": "hf_olmo", "mlp_hidden_size": 96}, 48),  # gate and value together
        ({"model_type": "molmo", "intermediate_size": 96}, 48),
        ({"model_type": "qwen", "intermediate_size": 96}, 48),
    ],
)
def test_widths_by_other_names(values: dict[str, Any], width: int) -> None:
    named = config(**values)
    if "intermediate_size" not in values:
        del named["intermediate_size"]
    assert {found.width for found in read(named).feed_forwards} == {width}


def test_a_list_that_is_not_by_layer_is_said() -> None:
    model = read(config(**{**MOE, "num_experts": [8, 4]}))
    assert {part.experts for part in model.feed_forwards} == {8}
    assert "num_experts lists 2 values for 8 layers: the first" in model.remarks[0]


def test_experts_that_do_nothing() -> None:
    values = config(
        model_type="longcat_flash", num_layers=4, ffn_hidden_size=96, expert_ffn_hidden_size=32,
        n_routed_experts=8, zero_expert_num=4, moe_topk=6, kv_lora_rank=32, q_lora_rank=None,
        qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    del values["num_hidden_layers"], values["intermediate_size"]
    model = read(values)
    assert model.layer_count == 8
    first, second = (layer.feed_forward for layer in model.layers[:2])
    assert first is not None and second is not None
    assert (first.width, first.experts, first.experts_per_token) == (96, 8, 4)
    assert (second.width, second.experts) == (96, 0)
