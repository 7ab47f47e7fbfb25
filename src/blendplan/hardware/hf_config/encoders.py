"""How large the encoders of images and sound are that stand beside a language model."""

from collections.abc import Mapping
from typing import Any

from blendplan.hardware.hf_config.fields import Config

_CONFIGS = ("vision_config", "visual", "audio_config", "sound_config", "vision_tower_config")
_WIDTH = ("embed_dim", "hidden_size", "vt_hidden_size", "d_model", "width")
_DEPTH = ("num_hidden_layers", "depth", "vt_num_hidden_layers", "encoder_layers", "layers")
_INNER = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim", "mlp_dim")
_GATED = ("pixtral", "gemma4", "glm4v", "qwen2_5_vl", "mistral3")
# Of models whose files may leave the encoder out: the sizes that other published files state.
_LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "llama4": {
        "hidden_size": 1408,
        "num_hidden_layers": 34,
        "intermediate_size": 5632,
        "patch_size": 14,
        "image_size": 336,
        "projection_dim": 4096,
    },
}


def encoder_parameters(values: Mapping[str, Any], hidden: int) -> int:
    """Parameters of the encoders, estimated from their width, depth and projection.

    Args:
        values: of the whole file.
        hidden: width of the language model.
    """
    holder = values.get("thinker_config")
    within = {**values, **holder} if isinstance(holder, Mapping) else values
    left_out = _LEFT_OUT.get(str(values.get("model_type", "")))
    if left_out is not None and not isinstance(values.get("vision_config"), Mapping):
        within = {**within, "vision_config": left_out}
    total = 0
    for name in _CONFIGS:
        inner = within.get(name)
        if isinstance(inner, Mapping):
            kind = f"{inner.get('model_type', '')} {values.get('model_type', '')}"
            total += _encoder(Config(inner, name), kind, hidden)
    return total


def _encoder(config: Config, kind: str, hidden: int) -> int:
    width, depth = _size(config, _WIDTH), _size(config, _DEPTH)
    if not width or not depth:
        return 0
    ratio = config.value("mlp_ratio")
    inner = _size(config, _INNER)
    inner = inner or int(width * (ratio if isinstance(ratio, int | float) else 4))
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


def _size(config: Config, names: tuple[str, ...]) -> int:
    """A size that is none where the file has something else."""
    value = config.value(names)
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 < value < 10**7 else 0
