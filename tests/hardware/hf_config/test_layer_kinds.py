"""Which layer is of which kind, by every field that says so."""

from typing import Any

import pytest

from blendplan.errors import BlendplanError
from tests.hardware.hf_config.configs import config, kinds, read

F, S, C = "full", "sliding", "chunked"
WINDOW = {"sliding_window": 128}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
SSM = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "model_type": "bamba"}
KDA = {"num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [F] * 8),
        ({"layer_types": ["sliding_attention", "full_attention"] * 4} | WINDOW, [S, F] * 4),
        ({"layer_types": ["full_attention"] * 8} | WINDOW, [F] * 8),
        ({"layer_types": ["sliding_attention"] * 8, "sliding_window": None}, [F] * 8),
        ({"model_type": "mistral"} | WINDOW, [S] * 8),
        ({"model_type": "mistral", "sliding_window": None}, [F] * 8),
        ({"model_type": "gemma2"} | WINDOW, [S, F] * 4),
        ({"model_type": "gemma3_text"} | WINDOW, [S] * 5 + [F, S, S]),
        ({"model_type": "gemma4_text"} | WINDOW, [S] * 5 + [F, S, F]),
        ({"model_type": "gpt_oss"} | WINDOW, [S, F] * 4),
        ({"model_type": "cohere2"} | WINDOW, [S, S, S, F] * 2),
        ({"model_type": "new_kind"} | WINDOW, [S] * 8),
        ({"sliding_window_pattern": 4} | WINDOW, [S, S, S, F] * 2),
        ({"sliding_window_pattern": "LLLG"} | WINDOW, [S, S, S, F] * 2),
        ({"global_attn_every_n_layers": 4} | WINDOW, [S, S, S, F] * 2),
        ({"hybrid_layer_pattern": [0, 1, 1, 1] * 2} | WINDOW, [F, S, S, S] * 2),
        ({"sliding_window": [None, 128] * 4}, [F, S] * 4),
        ({"use_sliding_window": False, "max_window_layers": 4} | WINDOW, [F] * 8),
        ({"use_sliding_window": True, "max_window_layers": 4} | WINDOW, [F] * 4 + [S] * 4),
        ({"model_type": "mistral", "sliding_window": 4096}, [F] * 8),  # as long as the context
        ({"no_rope_layers": [1, 1, 1, 0] * 2, "attention_chunk_size": 64}, [C, C, C, F] * 2),
        ({"model_type": "llama4_text", "attention_chunk_size": 64}, [C, C, C, F] * 2),
        ({"model_type": "qwen3_next", **DELTA}, (["gated_delta"] * 3 + [F]) * 2),
        ({"full_attention_interval": 2, **DELTA}, ["gated_delta", F] * 4),
        ({"attn_type_list": [0, 0, 0, 1] * 2, "model_type": "minimax_m1"},
         (["lightning"] * 3 + [F]) * 2),
        ({"attn_layer_period": 4, "attn_layer_offset": 1, "model_type": "jamba",
          "mamba_d_state": 4}, ["mamba1", F, "mamba1", "mamba1"] * 2),
        ({"attn_layer_indices": [1, 5], **SSM}, ["mamba2", F, "mamba2", "mamba2"] * 2),
        ({"layer_types": ["mamba", "attention"] * 4, **SSM}, ["mamba2", F] * 4),
        ({"model_type": "lfm2", "conv_L_cache": 3, "full_attn_idxs": [3, 7]},
         (["short_conv"] * 3 + [F]) * 2),
        ({"layer_types": ["conv", "full_attention"] * 4, "conv_L_cache": 3},
         ["short_conv", F] * 4),
        ({"linear_attn_config": {"full_attn_layers": [4, 8], "kda_layers": [1], **KDA}},
         (["kda"] * 3 + [F]) * 2),
        ({"layer_group_size": 4}, (["lightning"] * 3 + [F]) * 2),
        ({"layer_group_size": 3}, ["lightning"] * 2 + [F] + ["lightning"] * 2 + [F, F, F]),
        ({"model_type": "falcon_h1", "mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_ssm": 128},
         ["full + mamba2"] * 8),
        ({"model_type": "mamba2", "state_size": 16, "num_heads": 8, "head_dim": 16},
         ["mamba2"] * 8),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-*-M-*-"},
         ["mamba2", "feed-forward", F, "feed-forward"] * 2),
        ({"sliding_window": 128.0, "model_type": "mistral"}, [S] * 8),
        ({"model_type": "recurrent_gemma", "block_types": ["recurrent", "attention"],
          "attention_window_size": 128}, ["rglru", S] * 4),
        ({"layer_types": ["sliding_attention", "full_attention"] * 4 + ["sliding_attention"] * 2,
          "num_nextn_predict_layers": 2} | WINDOW, [S, F] * 4),
        ({"model_type": "plamo2", "mamba_step": 2, "attention_window_size": 128,
          "mamba_num_heads": 4}, ["mamba2", S] * 4),
        ({"model_type": "plamo2", "mamba_step": 4, "attention_window_size": 128,
          "mamba_num_heads": 4, "full_attention_idx": [6]},
         ["mamba2", "mamba2", S, "mamba2", "mamba2", "mamba2", F, "mamba2"]),
        ({"model_type": "plamo2", "mamba_step": 20, "mamba_num_heads": 4}, ["mamba2"] * 7 + [F]),
        ({"model_type": "plamo2", "mamba_step": 2, "mamba_enabled": False,
          "attention_window_size": 128}, [S] * 8),
        ({"cross_attention_layers": [3, 7]}, ([F] * 3 + ["feed-forward"]) * 2),
        ({"num_kv_shared_layers": 2}, [F] * 6 + ["shared KV"] * 2),
    ],
)  # fmt: skip
def test_kinds(values: dict[str, Any], expected: list[str]) -> None:
    assert kinds(**values) == expected


def test_the_list_of_layers_says_how_many_there_are() -> None:
    values = config(layers_block_type=["attention"] * 5)
    del values["num_hidden_layers"]
    assert read(values).layer_count == 5
    assert read(config(model_type="nemotron_h", hybrid_override_pattern="M*-")).layer_count == 3


def test_an_unknown_kind_of_attention_is_full_and_said_so() -> None:
    model = read(config(layer_types=["spiral_attention"] * 8))
    assert model.layers_by_kind == {"full": 8}
    assert "'spiral_attention', which is not known: read as full" in model.remarks[0]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "no field says how wide their window is"),
        ({"sliding_window": None}, "no field says how wide their window is"),
        ({"sliding_window": 0}, "no field says how wide their window is"),
        ({"use_sliding_window": False} | WINDOW, "use_sliding_window is off"),
        ({"model_type": "qwen3"}, "use_sliding_window is off"),  # as its class has it
    ],
)
def test_sliding_layers_without_a_window_are_full_and_said_so(
    values: dict[str, Any], why: str
) -> None:
    model = read(config(layer_types=["sliding_attention"] * 8, **values))
    assert model.layers_by_kind == {F: 8}
    assert f"8 layers are called sliding, but {why}" in " ".join(model.remarks)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer_types": ["spiral"] * 8}, "layer_types has 'spiral', a layer that is not known"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types lists 3 layers of 8"),
        ({"layer_types": ["full_attention"] * 9}, "layer_types lists 9 layers of 8"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention'; expected a list"),
        ({"layer_types": {"0": "full_attention"}}, "layer_types is an object; expected a list"),
        ({"sliding_window": "4096"}, "sliding_window is '4096'; expected a whole number"),
        ({"sliding_window": -1}, "sliding_window is -1; expected a whole number"),
        ({"sliding_window": 40.5}, "sliding_window is 40.5; expected a whole number"),
        ({"sliding_window": True}, "sliding_window is true; expected a whole number"),
        ({"sliding_window": [None, "4096"] * 4}, "sliding_window is '4096'; expected a whole"),
        ({"layer_types": ["linear_attention"] * 8}, "whose state is not known"),
        ({"num_hidden_layers": 0}, "0 layers"),
        ({"num_hidden_layers": 99999}, "99999 layers"),
        ({"model_type": "xlstm"}, "model type 'xlstm' is not modelled"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BlendplanError, match=message) as caught:
        read(config(**values))
    assert "\n" not in str(caught.value)
