"""What generates no text token by token is refused, by its type or its architectures."""

from typing import Any

import pytest

from blendplan.errors import BlendplanError
from tests.hardware.hf_config.configs import config, read


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"is_encoder_decoder": True}, "an encoder-decoder model"),
        ({"model_type": "bert"}, "model type 'bert' is not modelled"),
        ({"type_vocab_size": 2}, "model type 'llama' is not modelled"),
        ({"model_type": "Dream"}, "'dream' is not modelled: it generates by diffusion"),
        ({"model_type": "llada"}, "'llada' is not modelled: it generates by diffusion"),
    ],
)
def test_types_that_are_not_modelled(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BlendplanError, match=message) as caught:
        read(config(**values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BertForMaskedLM", "generates no text"),
        ("LlamaForSequenceClassification", "generates no text"),
        ("Qwen2ForRewardModel", "generates no text"),
        ("Qwen2ForProcessRewardModel", "generates no text"),
        ("JinaForRanking", "generates no text"),
        ("LlamaBidirectionalModel", "generates no text"),
        ("MistralModel", "has no head that generates text"),
        ("Gemma3TextModel", "has no head that generates text"),
        ("LlamaForCausalLMEagle3", "only drafts tokens for another model"),
        ("Eagle3Qwen3ForCausalLM", "only drafts tokens for another model"),
        ("EagleDeepSeekMTPModel", "only drafts tokens for another model"),
        ("MedusaModel", "only drafts tokens for another model"),
    ],
)
def test_classes_that_generate_no_text(name: str, message: str) -> None:
    with pytest.raises(BlendplanError, match=f"a '{name}' {message}"):
        read(config(architectures=[name]))
    with pytest.raises(BlendplanError, match=f"a '{name}' {message}"):
        read(config(architectures=name))


@pytest.mark.parametrize(
    "names",
    [
        ["LlamaForCausalLM"],
        ["BertModel", "LlamaForCausalLM"],
        ["ChatGLMModel"],
        ["GPT2LMHeadModel"],
        ["GPT2LMHeadCustomModel"],
        ["InternVLChatModel"],
        ["UltravoxModel"],
        ["Qwen2_5OmniModel"],
        ["MiDashengLMModel"],
        ["Eagle2_5_VLForConditionalGeneration"],
        ["Llama_Nemotron_Nano_VL"],
        ["OpenVLAForActionPrediction"],
        [],
        None,
    ],
)
def test_classes_that_generate_text(names: Any) -> None:
    assert read(config(architectures=names)).layers_by_kind == {"full": 8}
