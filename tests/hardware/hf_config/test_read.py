"""Whole files: what is assumed is said, and nothing but a refusal comes of nonsense."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from benchmarks.published_models import PUBLISHED
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.hardware.catalogue import entry_named
from blendplan.hardware.hf_config import layers
from blendplan.hardware.lookup import model_names, model_spec
from blendplan.hardware.model import ModelSpec
from tests.hardware.hf_config.configs import config, read

FOLDER = Path(os.environ.get("BLENDPLAN_DATA", ".")) / "models" / "configs"
FILES = sorted(FOLDER.glob("*.json"))


def remarks(**values: Any) -> str:
    return " ".join(read(config(**values)).remarks)


def test_fields_that_nobody_read_are_named() -> None:
    found = remarks(attention_spiral_size=8, expert_choice_width=3, kv_twist=2)
    assert "not understood: attention_spiral_size, expert_choice_width, kv_twist" in found
    assert remarks(attention_spiral_size=None, use_kv_twist=False) == ""
    assert remarks(attention_dropout=0.1, initializer_range=0.02, rope_theta=1e4) == ""


def test_sizes_that_the_class_has_are_said() -> None:
    values = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34}
    model = read(values | {"intermediate_size": 10240, "sliding_window": 1024})
    assert "num_attention_heads 8, vocab_size 262208" in model.remarks[0]
    assert next(iter(model.attentions)).kv_heads == 4
    assert model.tied_embeddings
    assert model.max_context_tokens == 131072


def test_null_in_the_file_is_not_the_default_of_the_class() -> None:
    assert read(config(model_type="mistral", sliding_window=None)).layers_by_kind == {"full": 8}
    missing = read(config(model_type="mistral", max_position_embeddings=9000))
    assert missing.layers_by_kind == {"sliding": 8}


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        ({"model_type": "llama"}, 6_738_415_616),
        (
            {
                "model_type": "llava",
                "text_config": {
                    "model_type": "llama",
                    "vocab_size": 32064,
                    "max_position_embeddings": 4096,
                    "torch_dtype": "float16",
                },
            },
            6_738_415_616 + 2 * 64 * 4096,
        ),
    ],
)
def test_a_file_that_names_its_class_alone_has_the_sizes_of_the_class(
    values: dict[str, Any], parameters: int
) -> None:
    model = read(values)
    assert model.parameters == parameters
    assert "by the class of llama: hidden_size 4096" in " ".join(model.remarks)


CHATGLM = {
    "model_type": "chatglm",
    "hidden_size": 4096,
    "num_layers": 28,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "ffn_hidden_size": 13696,
    "padded_vocab_size": 65024,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": True,
    "fp32_residual_connection": False,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        (CHATGLM, 6_243_584_000),  # ChatGLM3-6B, of the published checkpoint
        (
            CHATGLM | {"num_layers": 40, "padded_vocab_size": 151552, "seq_length": 131072},
            9_399_951_360,  # GLM-4-9B
        ),
    ],
)
def test_chatglm(values: dict[str, Any], parameters: int) -> None:
    model = read(values)
    assert model.parameters == parameters
    assert next(iter(model.attentions)).kv_heads == 2
    assert model.max_context_tokens == values["seq_length"]
    assert model.remarks == ()
    every = read(values | {"multi_query_attention": False})
    assert next(iter(every.attentions)).kv_heads == 32
    with pytest.raises(BlendplanError, match="ChatGLM of the first generation is not modelled"):
        read(values | {"position_encoding_2d": True})


def test_a_file_without_width_whose_class_is_not_known_is_none() -> None:
    with pytest.raises(BlendplanError, match="hidden_size is missing"):
        read({"model_type": "spiral", "quantization_config": {"quant_method": "fp8"}})


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        # BLOOM has 176 B parameters, XGLM-7.5B what its name says.
        (
            {"n_embed": 14336, "n_layer": 70, "num_attention_heads": 112, "vocab_size": 250880}
            | {"model_type": "bloom", "seq_length": 2048},
            176.25e9,
        ),
        (
            {"d_model": 4096, "num_layers": 32, "attention_heads": 32, "ffn_dim": 16384}
            | {"model_type": "xglm", "vocab_size": 256008, "max_position_embeddings": 2048},
            7.5e9,
        ),
        # As the names of the models, their cards and their weights state it.
        (
            {"hidden_size": 4096, "hidden_size_per_head": 128, "intermediate_size": 16384}
            | {"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 4}
            | {"mamba_num_heads": 64, "mamba_d_state": 64, "mamba_step": 2, "mamba_d_conv": 4}
            | {"attention_window_size": 2048, "vocab_size": 100000, "model_type": "plamo2"},
            9.1e9,
        ),
        (
            {"d_model": 4096, "n_heads": 32, "n_layers": 32, "mlp_hidden_size": 22016}
            | {"vocab_size": 50280, "weight_tying": False, "model_type": "hf_olmo"},
            6.89e9,
        ),
        (
            {"hidden_size": 4096, "ff_intermediate_size": 14336, "num_attention_heads": 32}
            | {"num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 100352}
            | {"model_type": "phi3small"},
            7.39e9,
        ),
    ],
)
def test_sizes_by_other_names(values: dict[str, Any], parameters: float) -> None:
    model = read(values)
    assert model.parameters == pytest.approx(parameters, rel=0.01)
    assert not any("by the class" in remark for remark in model.remarks)


@pytest.mark.parametrize(
    ("renamed", "to"),
    [
        ("hidden_size", "hidden_width"),
        ("num_hidden_layers", "n_hidden_layers"),
        ("num_attention_heads", "attention_head_count"),
        ("vocab_size", "vocabulary_entries"),
        ("intermediate_size", "mlp_width"),
        ("intermediate_size", "d_ff"),
        ("intermediate_size", "feed_forward_size"),
        ("intermediate_size", "hidden_dim"),
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "spiral"])
def test_a_size_that_is_assumed_does_not_pass_for_one_that_nobody_read(
    renamed: str, to: str, model_type: str
) -> None:
    values = config(model_type=model_type)
    values[to] = values.pop(renamed)
    known = model_type == "llama" or renamed == "intermediate_size"
    message = f" is missing, and {to} is {values[to]}" if known else " is missing"
    with pytest.raises(BlendplanError, match=renamed + message):
        read(values)


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_language_model_within_a_larger_one(name: str) -> None:
    vision = {"hidden_size": 32, "depth": 2, "patch_size": 4}
    outer = {"model_type": "some_vl", name: config(), "vision_config": vision}
    model = read(outer)
    assert model.layers == read(config()).layers
    assert 2 * 12 * 32**2 < model.encoder_parameters < 3 * 12 * 32**2
    assert model.active_parameters == read(config()).active_parameters
    assert model.weight_bytes() > read(config()).weight_bytes()


def test_tied_embeddings_of_the_larger_model_count() -> None:
    inner = config()
    del inner["tie_word_embeddings"]
    assert read({"text_config": inner, "tie_word_embeddings": True}).tied_embeddings
    assert not read({"text_config": inner}).tied_embeddings


def folder_with(folder: Path, name: str, text: str) -> Path:
    """A folder with a small model, and another file beside its config."""
    (folder / "config.json").write_text(json.dumps(config()))
    (folder / name).write_text(text)
    return folder


def test_quantisation_beside_the_config_counts(tmp_path: Path) -> None:
    text = json.dumps({"quantization": {"quant_algo": "FP8"}})
    assert model_spec(folder_with(tmp_path, "hf_quant_config.json", text)).weight_bits == 8.0


@pytest.mark.parametrize("text", ["{", "[]", "", '{"quantization": "FP8"}'])
def test_quantisation_beside_the_config_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(BlendplanError, match=r"hf_quant_config\.json") as caught:
        model_spec(folder_with(tmp_path, "hf_quant_config.json", text))
    assert "\n" not in str(caught.value)


def test_a_broken_tokenizer_is_for_others_to_refuse(tmp_path: Path) -> None:
    assert model_spec(folder_with(tmp_path, "tokenizer_config.json", "{")).remarks == ()


def test_the_format_of_mistral_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"dim": 4096, "n_layers": 32, "vocab_size": 32768}')
    for path in (tmp_path, tmp_path / "params.json"):
        with pytest.raises(BlendplanError, match=r"Mistral's own format .* which is not read"):
            model_spec(path)


_NONSENSE: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, "", "x", True, -1, 0, 3.5, 10**12, 10**400, 1e300, float("inf"), float("nan")),
        *([], {}, [1], [None], ["x"], [[1]], [{}], {"a": 1}),
    ]
)
_BASES = [
    config(),
    config(model_type="gemma4_text", layer_types=["sliding_attention"] * 8, sliding_window=64),
    config(model_type="qwen3_moe", num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32),
    config(model_type="nemotron_h", hybrid_override_pattern="M-*E", n_routed_experts=4),
    config(kv_lora_rank=32, qk_nope_head_dim=16, index_topk=9, index_n_heads=2, index_head_dim=4),
    config(linear_attn_config={"full_attn_layers": [4], "num_heads": 4, "head_dim": 16}),
    config(model_type="plamo2", mamba_step=2, mamba_num_heads=4, full_attention_idx=[3]),
    config(model_type="mpt", expansion_ratio=4, mlp_only_layers=[1], num_experts=4),
    config(model_type="lfm2", block_auto_adjust_ff_dim=True, block_multiple_of=8, conv_L_cache=3),
    config(mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16, layer_types=["mamba"] * 8),
    config(rope_scaling={"type": "linear", "factor": 2.0}, sliding_window=64),
    config(vision_config={"hidden_size": 8, "depth": 2, "mlp_ratio": 4.0, "model_type": "pixtral"}),
    config(quantization_config={"quant_method": "compressed-tensors", "config_groups": {"a": {}}}),
]


@settings(max_examples=300)
@given(st.sampled_from(_BASES), st.data())
def test_nonsense_gives_a_model_or_one_line(base: dict[str, Any], data: st.DataObject) -> None:
    values = json.loads(json.dumps(base))
    for name in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        holder = values
        inner = values.get(name)
        if isinstance(inner, dict) and inner and data.draw(st.booleans()):
            holder, name = inner, data.draw(st.sampled_from(sorted(inner)))
        holder[name] = data.draw(_NONSENSE)
    try:
        model = read(values)
    except BlendplanError as error:
        assert "\n" not in str(error)
    else:
        assert model.parameters > 0
        assert model.weight_bytes() > 0


@pytest.mark.parametrize("name", model_names())
def test_layers_built_once_are_those_built_one_by_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = model_spec(name)
    numbers = iter(range(10**6))
    monkeypatch.setattr(layers, "_told_apart", lambda *_: str(next(numbers)))
    assert model_spec(name).layers == known.layers


@pytest.mark.skipif(not FILES, reason="BLENDPLAN_DATA names no folder with models/configs/")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_files(path: Path) -> None:
    model: ModelSpec = model_spec(path)
    assert not [remark for remark in model.remarks if "not understood" in remark]
    stated = PUBLISHED.get(entry_named("models", path.stem) or "")
    if stated is not None:
        assert stated.total_met(model.parameters)
        assert stated.active_met(model.active_parameters)
