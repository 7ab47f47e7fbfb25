"""How large the encoders of images and sound are that stand beside a language model."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from blendplan.hardware.hf_config.class_defaults import encoder_defaults
from blendplan.hardware.hf_config.fields import Config

_CONFIGS = ("vision_config", "visual", "audio_config", "sound_config", "vision_tower_config")
_WIDTH = ("embed_dim", "hidden_size", "vt_hidden_size", "d_model", "width")
_DEPTH = ("num_hidden_layers", "depth", "vt_num_hidden_layers", "encoder_layers", "layers")
_INNER = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim", "mlp_dim")
_GATED = ("pixtral", "gemma4", "glm4v", "qwen2_5_vl", "mistral3")
# Of models whose files may leave the encoder out: the sizes that other published files state, or
# that vLLM 0.32 has for the class (`VisionBackboneConfig` of Molmo, SigLIP in Phi-4-multimodal).
_LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "llama4": {
        "hidden_size": 1408,
        "num_hidden_layers": 34,
        "intermediate_size": 5632,
        "patch_size": 14,
        "image_size": 336,
        "projection_dim": 4096,
    },
    "molmo": {
        "hidden_size": 1024,
        "num_hidden_layers": 23,
        "intermediate_size": 4096,
        "patch_size": 14,
        "image_size": 336,
    },
    "phi4mm": {
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "intermediate_size": 4304,
        "patch_size": 14,
        "image_size": 448,
    },
}
# Encoders that a file names and does not describe, and their parameters (timm).
_NAMED = {"mobilenetv5_300m_enc": 294_000_000}
_LOOKS_LIKE_ONE = re.compile(r"(^|_)(vision|visual|image|img|audio|sound|speech)(_|$)")


def encoder_parameters(config: Config, values: Mapping[str, Any], hidden: int) -> int:
    """Parameters of the encoders, estimated from their width, depth and projection.

    An encoder whose size neither the file nor its class states is remarked on.

    Args:
        config: of the language model, which gets the remarks.
        values: of the whole file.
        hidden: width of the language model.
    """
    holder = values.get("thinker_config")
    within = {**values, **holder} if isinstance(holder, Mapping) else values
    left_out = _LEFT_OUT.get(str(values.get("model_type", "")))
    if left_out is not None and not isinstance(values.get("vision_config"), Mapping):
        within = {**within, "vision_config": left_out}
    total, uncounted = 0, []
    for name, inner in _described(within):
        kind = f"{inner.get('model_type', '')} {values.get('model_type', '')}"
        found = _encoder(_with_defaults(inner, name), kind, hidden)
        total += found
        if not found:
            uncounted.append(name)
    if not total and not uncounted:
        uncounted = [
            name
            for name, value in within.items()
            if isinstance(value, Mapping) and value and _LOOKS_LIKE_ONE.search(name)
        ]
    if uncounted:
        config.remark(
            f"no field says how large the encoder of {', '.join(uncounted)} is: its weights are "
            "not counted"
        )
    return total


def _described(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Fields that describe an encoder, which are not empty."""
    for name in _CONFIGS:
        inner = values.get(name)
        if isinstance(inner, Mapping) and inner:
            yield name, inner
    speech = values.get("audio_processor")  # Phi-4-multimodal
    if isinstance(speech, Mapping) and isinstance(speech.get("config"), Mapping):
        yield "audio_processor", speech["config"]


def _with_defaults(inner: Mapping[str, Any], name: str) -> Config:
    """The fields of an encoder, with the sizes of its class where its own are missing."""
    config = Config(inner, name)
    if _size(config, _WIDTH) and _size(config, _DEPTH):
        return config
    return Config(inner, name, encoder_defaults(str(inner.get("model_type", ""))))


def _encoder(config: Config, kind: str, hidden: int) -> int:
    named = _NAMED.get(config.word("architecture"))
    if named:
        return named
    if config.says(("conf_num_hidden_layers", "linear_units")):
        return _conformer(config, hidden)
    width, depth = _size(config, _WIDTH), _size(config, _DEPTH)
    if not width or not depth:
        return 0
    inner = _size(config, _INNER) or int(width * config.times("mlp_ratio", 4))
    out = _size(config, ("out_hidden_size", "projection_dim", "text_hidden_size"))
    if "glm4v" in kind or "glm4_1v" in kind:
        inner = out or inner
    gated = any(each in kind for each in _GATED) or config.word("hidden_act") == "silu"
    attention = 4 * width * (_size(config, ("qkv_hidden_size",)) or width)
    layers = depth * (attention + (3 if gated else 2) * width * inner)
    patch = _size(config, ("patch_size",))
    stem = 3 * patch * patch * width * max(1, _size(config, ("temporal_patch_size",)))
    rows = _size(config, ("num_position_embeddings", "position_embedding_size"))
    if not rows and patch:
        rows = (_size(config, ("image_size",)) // patch) ** 2
    merged = width * max(1, _size(config, ("spatial_merge_size",))) ** 2
    return layers + stem + rows * width + merged * merged + merged * (out or hidden)


def _conformer(config: Config, hidden: int) -> int:
    """An encoder of sound: two MLPs, attention and a convolution in each layer."""
    width = _size(config, ("hidden_size", "attention_dim"))
    depth = _size(config, ("conf_num_hidden_layers", "num_blocks"))
    inner = _size(config, ("linear_units",))
    mlp = 3 * width * inner if inner else 8 * width * width  # gated; or four times as wide
    return depth * (2 * mlp + 8 * width * width) + width * hidden


def _size(config: Config, names: tuple[str, ...]) -> int:
    """A size that is none where the file has something else."""
    value = config.value(names)
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 < value < 10**7 else 0
