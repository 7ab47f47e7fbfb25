"""How far back a sliding window reaches."""

from blendplan.hardware.hf_config.fields import Config


def sliding_window(config: Config) -> int:
    """Tokens of the window; 0 where there is none, or where it is switched off."""
    value = config.value(
        ("sliding_window", "sliding_window_size", "attention_window_size", "attn_window_size")
    )
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, int) and each > 0), 0)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        return 0
    if not config.flag("use_sliding_window", True):
        return 0
    context = config.value("max_position_embeddings")
    if isinstance(context, int) and 0 < context * max(_rope_factor(config), 1.0) <= value:
        return 0
    return value


def _rope_factor(config: Config) -> float:
    scaling = config.value(("rope_scaling", "rope_parameters"))
    factor = scaling.get("factor", 1.0) if isinstance(scaling, dict) else 1.0
    return float(factor) if isinstance(factor, int | float) else 1.0
