"""Encoders of images and sound: their size as a file or their class has it, else a remark."""

from typing import Any

import pytest

from tests.hardware.hf_config.configs import config, read


def with_encoder(**values: Any) -> dict[str, Any]:
    return {"model_type": "some_vl", "text_config": config(), **values}


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        # Sizes of the weights: Pixtral 12B, Gemma 3n, LLaVA 1.5, Whisper large's encoder, Molmo.
        ({"vision_config": {"model_type": "pixtral", "patch_size": 16, "image_size": 1024}}, 0.40),
        ({"vision_config": {"architecture": "mobilenetv5_300m_enc", "hidden_size": 2048}}, 0.294),
        ({"audio_config": {"conf_num_hidden_layers": 12, "hidden_size": 1536}}, 0.68),
        ({"vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14}}, 0.30),
        ({"audio_config": {"model_type": "qwen2_audio_encoder"}}, 0.635),
        ({"model_type": "molmo"}, 0.29),
        ({"model_type": "phi4mm"}, 0.43),
    ],
)
def test_sizes_by_the_file_or_the_class(values: dict[str, Any], parameters: float) -> None:
    model = read(with_encoder(**values))
    assert model.encoder_parameters / 1e9 == pytest.approx(parameters, rel=0.05)
    assert f"estimated at {model.encoder_parameters / 1e9:.2f} B" in " ".join(model.remarks)
    assert "not counted" not in " ".join(model.remarks)


def test_what_the_file_states_counts_before_the_class() -> None:
    small = {"model_type": "pixtral", "hidden_size": 32, "num_hidden_layers": 2}
    assert read(with_encoder(vision_config=small)).encoder_parameters < 10**5


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"vision_config": {"model_type": "new_kind", "patch_size": 14}}, "vision_config"),
        ({"audio_config": {"hidden_size": 64}}, "audio_config"),
        ({"speech_encoder": {"layers": 4}, "rope": {"a": 1}}, "speech_encoder"),
    ],
)
def test_an_encoder_of_unknown_size_is_said_not_to_count(values: dict[str, Any], name: str) -> None:
    model = read(with_encoder(**values))
    assert model.encoder_parameters == 0
    expected = f"no field says how large the encoder of {name} is: its weights are not counted"
    assert expected in model.remarks


@pytest.mark.parametrize("values", [{}, {"vision_config": None}, {"audio_config": {}}])
def test_a_model_without_encoders_says_nothing(values: dict[str, Any]) -> None:
    assert read(with_encoder(**values)).remarks == ()
