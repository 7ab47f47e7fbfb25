"""Bits of each part of a model, as its files say."""

from typing import Any

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.modules import ANY_LAYER, modules_named
from tests.hardware.hf_config.configs import config, read

MOE = {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 16,
    "mlp_only_layers": [0],
}
NVFP4 = {"num_bits": 4, "type": "float", "group_size": 16}
MXFP8 = {"num_bits": 8, "type": "float", "group_size": 32, "strategy": "group"}
CT = {"quant_method": "compressed-tensors"}
ALL = {"quant_method": "modelopt", "quant_algo": "NVFP4"}


def bits(quantisation: dict[str, Any] | None, **values: Any) -> tuple[float, ...]:
    """Of attention, dense MLP, experts, shared experts and head."""
    if quantisation is not None:
        values["quantization_config"] = quantisation
    model = read(config(**{**MOE, **values}))
    dense, routed = (layer for layer in model.layer_counts)
    assert dense.attention and dense.feed_forward and routed.feed_forward
    return (
        dense.attention.weight_bits,
        dense.feed_forward.weight_bits,
        routed.feed_forward.expert_bits,
        routed.feed_forward.shared_bits,
        model.head_bits,
    )


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        (None, (16, 16, 16, 16, 16)),
        ({"quant_method": "fp8"}, (8, 8, 8, 8, 16)),
        ({"quant_method": "mxfp4"}, (16, 16, 4.25, 16, 16)),
        ({"quant_method": "mxfp8"}, (8.25, 8.25, 8.25, 8.25, 16)),
        ({"quant_method": "modelopt_mxfp8"}, (8.25, 8.25, 8.25, 8.25, 16)),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, (8.25, 8.25, 8.25, 8.25, 16)),
        ({"quant_method": "compressed-tensors",
          "config_groups": {"a": {"targets": ["Linear"], "weights": MXFP8}}},
         (8.25, 8.25, 8.25, 8.25, 16)),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, (4 + 20 / 128,) * 4 + (16,)),
        (ALL | {"exclude_modules": ["lm_head"]}, (4.5, 4.5, 4.5, 4.5, 16)),
        (ALL | {"ignore": ["model.layers.*.self_attn*"]}, (16, 4.5, 4.5, 4.5, 16)),
        (ALL | {"ignore": ["re:.*mlp\\.(gate|up|down)_proj.*"]}, (4.5, 16, 4.5, 4.5, 16)),
        (ALL | {"ignore": ["*.mlp.shared_experts.*"]}, (4.5, 4.5, 4.5, 16, 16)),
        (ALL | {"ignore": ["model.layers.1.mlp.gate", "e_score_correction_bias"]},
         (4.5, 4.5, 4.5, 4.5, 16)),
        ({"quant_method": "compressed-tensors",
          "config_groups": {"a": {"targets": ["Linear"], "weights": NVFP4}}},
         (4.5, 4.5, 4.5, 4.5, 16)),
        ({"quant_method": "compressed-tensors",
          "config_groups": {"a": {"targets": ["re:.*mlp.experts.*"], "weights": NVFP4}}},
         (16, 16, 4.5, 16, 16)),
        ({"quant_algo": "FP8", "config_groups": {}}, (8, 8, 8, 8, 16)),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {
            f"model.layers.{layer}.mlp.experts.0.up_proj": {"quant_algo": "NVFP4"}
            for layer in range(8)}}, (16, 16, 4.5, 16, 16)),
    ],
)  # fmt: skip
def test_bits_of_each_part(
    quantisation: dict[str, Any] | None, expected: tuple[float, ...]
) -> None:
    assert bits(quantisation) == expected


BNB4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}
TORCHAO = {"quant_method": "torchao", "quant_type": "int4_weight_only"}
INT4 = {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 32}}}
GPTQ = {"quant_method": "gptq", "bits": 4}


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.0),
        (BNB4, 4.5),
        (BNB4 | {"bnb_4bit_use_double_quant": True}, 4 + 8 / 64 + 32 / (64 * 256)),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, 8.0),
        (TORCHAO, 4.25),
        (TORCHAO | {"quant_type_kwargs": {"group_size": 64}}, 4.5),
        (TORCHAO | {"quant_type": INT4}, 5.0),
        (GPTQ | {"group_size": -1}, 4.0),
        (GPTQ | {"group_size": None}, 4.0),
        (GPTQ | {"group_size": 32.0}, 4 + 20 / 32),
    ],
)
def test_scales_of_groups_count(quantisation: dict[str, Any], expected: float) -> None:
    assert read(config(quantization_config=quantisation)).weight_bits == expected


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        ({}, "quantization_config is empty: weights are taken to have 16 bits"),
        ({"quant_method": "compressed-tensors"}, "without config_groups that have weights"),
        (CT | {"config_groups": {"a": {"weights": None}}}, "without config_groups that have"),
        (CT | {"config_groups": {"a": {"targets": ["Linear"], "weights": NVFP4}},
               "sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4"}},
         "sparsity_config ('sparse-24-bitmask') is not modelled"),
    ],
)  # fmt: skip
def test_what_is_not_read_of_a_scheme_is_said(values: dict[str, Any], remark: str) -> None:
    assert remark in " ".join(read(config(quantization_config=values)).remarks)


@pytest.mark.parametrize(
    "values",
    [
        CT | {"config_groups": {}, "kv_cache_scheme": {"num_bits": 8}},
        CT | {"config_groups": {"a": {"targets": ["Linear"], "weights": NVFP4}},
              "sparsity_config": {"format": "dense"}},
        None,
    ],
)  # fmt: skip
def test_a_scheme_that_is_whole_needs_no_remark(values: dict[str, Any] | None) -> None:
    assert read(config(quantization_config=values)).remarks == ()


def test_experts_in_fewer_bits_than_the_rest() -> None:
    fp8 = {"quant_method": "fp8"}
    assert bits(fp8, expert_dtype="fp4") == (8, 8, 4.25, 8, 16)


def test_single_layers_are_left_out() -> None:
    left = ["model.layers.2.self_attn.q_proj", "model.layers.2.self_attn.o_proj"]
    model = read(config(quantization_config=ALL | {"ignore": left}))
    found = [layer.attention.weight_bits for layer in model.layers if layer.attention]
    assert found == [4.5, 4.5, 16, 4.5, 4.5, 4.5, 4.5, 4.5]


def test_a_cut_list_is_taken_for_all_layers_and_said_so() -> None:
    cut = ["model.layers.0.self_attn*", "... 9 entries in the source, first 1 kept"]
    model = read(config(quantization_config=ALL | {"ignore": cut}))
    assert {a.weight_bits for a in model.attentions} == {16.0}
    assert any("is cut" in remark for remark in model.remarks)


def test_what_stands_beside_the_config() -> None:
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    model = read(config(), beside)
    assert (model.weight_bits, model.kv_bits) == (8.0, 8.0)


def test_quantisation_of_the_whole_file_holds_for_its_language_model() -> None:
    outer = {"model_type": "x", "quantization_config": {"quant_method": "fp8"}}
    assert read(outer | {"text_config": config()}).weight_bits == 8.0


@pytest.mark.parametrize(
    ("quantisation", "message"),
    [
        ("fp8", "quantization_config is not an object"),
        ({"quant_method": "magic"}, "quantisation 'magic' is not known"),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "quant_algo 'FP3' is not known"),
        ([], "quantization_config is not an object but a list of 0"),
        ({"quant_method": "gptq", "bits": 5}, "weights of 5 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "a"}, "group_size is 'a'; expected"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size is 0; expected"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -7}, "group_size is -7; expected"),
        ({"quant_method": "awq", "bits": 4, "group_size": 1.5}, r"group_size is 1\.5; expected"),
        (CT | {"config_groups": "fp8"}, "config_groups has 'fp8'; expected objects"),
        (CT | {"config_groups": {"a": "fp8"}}, "config_groups has 'fp8'; expected objects"),
        (CT | {"config_groups": {"a": {"weights": 4}}}, "config_groups has 4; expected objects"),
    ],
)
def test_unknown_schemes_are_refused(quantisation: Any, message: str) -> None:
    with pytest.raises(BlendplanError, match=message):
        read(config(quantization_config=quantisation))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("lm_head", {(ANY_LAYER, "head")}),
        ("model.layers.3.self_attn.q_proj", {(3, "mixer")}),
        ("backbone.layers.4.mixer.in_proj", {(4, "mixer")}),
        ("model.language_model.layers.0.linear_attn*", {(0, "mixer")}),
        ("layers.7.ffn.experts", {(7, "experts")}),
        ("model.layers.2.mlp.shared_expert*", {(2, "shared")}),
        ("model.layers.2.mlp.shared_expert_gate", set()),
        ("model.layers.5.mlp.down_proj", {(5, "dense")}),
        ("model.layers.5.mlp", {(5, "dense"), (5, "experts"), (5, "shared")}),
        ("model.layers.10.block_sparse_moe.gate", set()),
        ("model.layers.59.post_attention_layernorm", set()),
        ("model.layers.1.self_attn.indexer.wk", set()),
        ("vision_tower", set()),
        ("model.layers.9", {(9, "mixer"), (9, "dense"), (9, "experts"), (9, "shared")}),
        ("re:.*self_attn.*", {(ANY_LAYER, "mixer")}),
        ("re:(", set()),
    ],
)
def test_names_of_modules(name: str, parts: set[tuple[int, str]]) -> None:
    assert set(modules_named(name).parts) == parts
