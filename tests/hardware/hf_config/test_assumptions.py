"""Whatever is taken without the file saying so is a remark."""

from typing import Any

import pytest

from blendplan.hardware.hf_config.read import model_from_config
from blendplan.hardware.model import ModelSpec
from tests.hardware.hf_config.configs import config, read


def without(name: str, **values: Any) -> dict[str, Any]:
    return {key: value for key, value in config(**values).items() if key != name}


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        (config(model_type="spiral"), "model type 'spiral' is not known: read as a model like"),
        (without("model_type"), "no model_type in the file: read as a model like Llama"),
        (
            without("intermediate_size", model_type="spiral"),
            "how wide the MLP is: 4 x hidden_size, 256, is taken",
        ),
        (
            without("intermediate_size"),
            "not in the file, by the class of llama: intermediate_size 11008",
        ),
        (config(torch_dtype="float17"), "torch_dtype 'float17' is not known"),
        (config(dtype=16), "dtype 16 is not known"),
        (
            without("max_position_embeddings"),
            "max_position_embeddings is not in the file: a context of 2,048 tokens is taken, by "
            "the class of llama",
        ),
        (
            config(max_position_embeddings=-5),
            "max_position_embeddings is -5: a context of 2,048 tokens is taken, as engines assume",
        ),
        (config(text_config="llama"), "text_config is 'llama', which is no object"),
        (
            without("head_dim", num_attention_heads=6, num_key_value_heads=3),
            "hidden_size 64 is no multiple of num_attention_heads 6, and no field says how wide a "
            "head is: 10 is taken",
        ),
        (
            config(
                model_type="bamba",
                attn_layer_indices=[1, 8, "x"],
                mamba_n_heads=8,
                mamba_d_head=16,
                mamba_d_state=16,
            ),
            "attn_layer_indices names layers that do not exist among 8: 8, 'x'",
        ),
    ],
)
def test_an_assumption_is_a_remark(values: dict[str, Any], remark: str) -> None:
    assert remark in " ".join(read(values).remarks)


@pytest.mark.parametrize(
    "values",
    [
        config(),
        config(torch_dtype="bfloat16", dtype="float32", text_config=None),
        without("intermediate_size", model_type="gpt2"),
        without("max_position_embeddings", seq_length=512),
        without("head_dim"),
    ],
)
def test_what_the_file_or_the_class_says_is_none(values: dict[str, Any]) -> None:
    assert read(values).remarks == ()


def test_the_context_of_the_tokenizer_is_named() -> None:
    def of(tokenizer: dict[str, Any]) -> ModelSpec:
        values = without("max_position_embeddings")
        return model_from_config("m", values, "model config m", tokenizer, {})

    assert "1,000 tokens is taken, as its tokenizer states" in " ".join(
        of({"model_max_length": 1000}).remarks
    )
