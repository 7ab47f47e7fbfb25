"""Sizes of attention and of states, and the parameters of whole models."""

from typing import Any

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.layers import Attention, State
from tests.hardware.hf_config.configs import config, read


def attention(**values: Any) -> Attention:
    (found,) = read(config(**values)).attentions
    return found


def state(**values: Any) -> State:
    (found,) = read(config(**values)).states
    return found


MLA: dict[str, Any] = {
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}


def test_latent_attention() -> None:
    found = attention(**MLA, q_lora_rank=24)
    assert (found.latent, found.rope_dim, found.query_latent) == (32, 8, 24)
    assert (found.key_dim, found.value_dim, found.kind) == (16, 12, "latent")


def test_sparse_attention_has_indexers_of_its_own_or_takes_those_of_earlier_layers() -> None:
    index = {"index_topk": 64, "index_n_heads": 2, "index_head_dim": 8, "q_lora_rank": 24}
    alone = attention(**MLA, **index)
    assert (alone.top_k, alone.indexer_heads, alone.indexer_dim) == (64, 2, 8)
    assert [p.n * p.k for p in alone.projections] == [16 * 24, 8 * 64, 2 * 64]
    types = ["full", "shared", "shared", "shared"] * 2
    by_list = read(config(**MLA, **index, indexer_types=types))
    assert [a.indexer_heads for a in by_list.attentions] == [2, 0]
    by_step = read(config(**MLA, **index, index_topk_freq=4, index_skip_topk_offset=1))
    assert by_step.layers == by_list.layers
    by_letters = read(config(**MLA, **index, index_topk_pattern="FSSSFSSS"))
    assert by_letters.layers == by_list.layers


def test_blocks_of_history_that_an_index_chooses() -> None:
    sparse = {
        "sparse_attention_freq": [0, 1] * 4,
        "sparse_block_size": 16,
        "sparse_topk_blocks": 3,
        "sparse_local_block": 1,
        "sparse_num_index_heads": 2,
        "sparse_index_dim": 8,
    }
    model = read(config(sparse_attention_config=sparse))
    assert model.layers_by_kind == {"full": 4, "block sparse": 4}
    assert [a.top_k for a in model.attentions] == [0, 64]


COMPRESSED: dict[str, Any] = {
    "model_type": "deepseek_v4", "compress_ratios": [0, 4, 128, 4, 0, 4, 128, 4],
    "sliding_window": 32, "q_lora_rank": 24, "o_lora_rank": 8, "o_groups": 2,
    "num_key_value_heads": 1, "index_topk": 64, "index_n_heads": 2, "index_head_dim": 8,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
}  # fmt: skip


def test_compressed_history() -> None:
    model = read(config(**COMPRESSED))
    assert model.layers_by_kind == {"sliding": 2, "compressed": 6}
    assert {(a.compression, a.top_k) for a in model.attentions} == {(0, 0), (4, 64), (128, 0)}
    assert all(a.kept_once and a.packed and a.window == 32 for a in model.attentions)
    assert model.kv_bits == 8, "what vLLM keeps unless it is told otherwise"
    assert [remark for remark in model.remarks if "256 tokens" in remark]
    assert not [remark for remark in model.remarks if "estimate" in remark]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"compress_ratios": [0, 16] * 4}, "no compressor for 16 tokens"),
        ({"model_type": "deepseek_v41"}, "laid out as that of DeepSeek V4"),
    ],
)
def test_what_is_estimated_of_compressed_history_is_said(
    changed: dict[str, Any], says: str
) -> None:
    model = read(config(**(COMPRESSED | changed)))
    assert [remark for remark in model.remarks if says in remark]


def test_compressed_history_without_a_window_is_refused() -> None:
    with pytest.raises(BlendplanError, match="sliding_window is 0"):
        read(config(**(COMPRESSED | {"sliding_window": 0})))


def test_sparse_latent_attention_says_what_fp8_takes() -> None:
    index = {"index_topk": 64, "index_n_heads": 2, "index_head_dim": 8, "q_lora_rank": 24}
    glm = config(model_type="glm_moe_dsa", **MLA, **index)
    # 32 bytes and a scale of 4, and 8 elements of 2.
    assert [remark for remark in read(glm).remarks if "52 bytes" in remark and "40" in remark]
    assert not [remark for remark in read(config(**MLA)).remarks if "fp8" in remark]


def test_layers_of_two_kinds_have_heads_of_their_own() -> None:
    types = ["sliding_attention", "full_attention"] * 4
    gemma = read(
        config(
            model_type="gemma4_text", layer_types=types, sliding_window=64, global_head_dim=32,
            attention_k_eq_v=True, num_global_key_value_heads=1, hidden_size_per_layer_input=0,
        )
    )  # fmt: skip
    sizes = {a.kind: (a.kv_heads, a.key_dim, a.keys_are_values) for a in gemma.attentions}
    assert sizes == {"sliding": (2, 16, False), "full": (1, 32, True)}
    mimo = read(
        config(
            layer_types=types, sliding_window=64, v_head_dim=8, swa_num_key_value_heads=4,
            swa_head_dim=20, swa_v_head_dim=10,
        )
    )  # fmt: skip
    found = {a.kind: (a.kv_heads, a.key_dim, a.value_dim) for a in mimo.attentions}
    assert found == {"sliding": (4, 20, 10), "full": (2, 16, 8)}
    step = read(
        config(
            layer_types=types, sliding_window=64,
            attention_other_setting={"num_attention_heads": 6, "num_attention_groups": 3},
        )
    )  # fmt: skip
    assert {a.kind: (a.heads, a.kv_heads) for a in step.attentions} == {
        "sliding": (6, 3),
        "full": (4, 2),
    }
    changed = read(config(per_layer_config={"07": {"head_dim": 32}}))
    assert [layer.attention.key_dim for layer in changed.layers if layer.attention] == [16] * 7 + [
        32
    ]


def test_layers_described_one_by_one() -> None:
    block = {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 2.0}}
    none = {"attention": {"no_op": True}, "ffn": {"intermediate_size": 40}}
    model = read(config(block_configs=[block, none] * 4, num_key_value_heads=None))
    assert model.layers_by_kind == {"full": 4, "feed-forward": 4}
    assert next(iter(model.attentions)).kv_heads == 1
    assert [part.width for part in model.feed_forwards] == [256, 40]


@pytest.mark.parametrize(
    ("values", "conv", "elements", "bits"),
    [
        ({"model_type": "mamba", "state_size": 8, "expand": 2, "conv_kernel": 4},
         3 * 128, 128 * 8, 16.0),
        ({"model_type": "mamba2", "num_heads": 8, "head_dim": 16, "state_size": 32, "n_groups": 2},
         3 * (128 + 2 * 2 * 32), 8 * 16 * 32, 16.0),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "MMMMMMMM", "mamba_num_heads": 4,
          "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2},
         3 * (32 + 2 * 2 * 16), 4 * 8 * 16, 32.0),
        ({"layer_types": ["linear_attention"] * 8, "linear_num_value_heads": 4,
          "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 16,
          "mamba_ssm_dtype": "float32"}, 3 * (2 * 16 + 64), 4 * 16 * 8, 32.0),
        ({"linear_attn_config": {"full_attn_layers": [99], "num_heads": 2, "head_dim": 8}},
         3 * 3 * 16, 2 * 8 * 8, 32.0),
        ({"model_type": "minimax_m1", "attn_type_list": [0] * 8}, 0, 4 * 16 * 16, 16.0),
        ({"layer_types": ["conv"] * 8, "conv_L_cache": 3}, 2 * 64, 0, 16.0),
        ({"model_type": "plamo2", "mamba_step": 2, "mamba_num_heads": 8, "mamba_d_state": 32},
         3 * 8 * 16, 8 * 16 * 32, 16.0),
    ],
)  # fmt: skip
def test_states(values: dict[str, Any], conv: int, elements: int, bits: float) -> None:
    found = state(**values)
    assert (found.conv_elements, found.state_elements) == (conv, elements)
    assert found.state_bits == bits


def test_keys_and_values_of_heads_that_come_from_a_latent() -> None:
    (found,) = read(config(model_type="minicpm3", **MLA, q_lora_rank=24)).attentions
    assert (found.latent, found.kv_heads, found.key_dim, found.value_dim) == (0, 4, 24, 24)
    latent = read(config(model_type="new_kind", **MLA, q_lora_rank=24))
    assert read(config(model_type="minicpm3", **MLA, q_lora_rank=24)).parameters == (
        latent.parameters
    )


def test_queries_through_a_narrow_matrix() -> None:
    wide, narrow = read(config()), read(config(share_q_dim=16))
    assert wide.parameters - narrow.parameters == 8 * (64 * 64 - 16 * (64 + 64))


def test_layers_that_attend_to_an_image_keep_nothing_of_the_text() -> None:
    plain, vision = read(config()), read(config(cross_attention_layers=[3, 7]))
    assert vision.kv_bytes_per_token() == plain.kv_bytes_per_token() * 6 / 8
    assert vision.parameters == plain.parameters
    assert "cross_attention_layers attend to an image" in " ".join(vision.remarks)


def test_shared_blocks_hold_their_weights_once() -> None:
    zamba = {
        "model_type": "zamba2",
        "mamba_d_state": 16,
        "n_mamba_heads": 8,
        "adapter_rank": 4,
        "num_mem_blocks": 2,
    }
    few = read(config(**zamba, hybrid_layer_ids=[1, 3]))
    many = read(config(**zamba, hybrid_layer_ids=[1, 3, 5, 7]))
    assert many.layers_by_kind == {"mamba2": 4, "full + mamba2": 4}
    own = 64 * 64 + 4 * 64 + 2 * 96 * 4
    assert many.parameters - few.parameters == 2 * own
    assert many.active_parameters > many.parameters


def test_layers_that_nothing_tells_apart_are_the_same_object() -> None:
    model = read(config(layer_types=["sliding_attention", "full_attention"] * 4, sliding_window=9))
    assert len({id(layer) for layer in model.layers}) == 2
