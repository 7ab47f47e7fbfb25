"""How far back a sliding window reaches."""

from blendplan.hardware.hf_config.fields import Config

_MOST = 10**9
_WINDOW = ("sliding_window", "sliding_window_size", "attention_window_size", "attn_window_size")


def stated_window(config: Config) -> int:
    """Tokens of the window, switched off or not; 0 where no field says.

    Where a list has a window for each layer, its first that is one.

    Raises:
        BlendplanError: no number of tokens.
    """
    value = config.value(_WINDOW)
    if not isinstance(value, list):
        return config.count(_WINDOW, default=0)
    name = config.named(_WINDOW)
    sizes = [config.whole(name, each) for each in value if each is not None]
    return next((size for size in sizes if size), 0)


def sliding_window(config: Config) -> int:
    """Tokens of the window; 0 where there is none, or where it is switched off.

    Raises:
        BlendplanError: no number of tokens.
    """
    tokens = stated_window(config)
    if not tokens or not config.flag("use_sliding_window", True):
        return 0
    context = config.value("max_position_embeddings")
    whole = isinstance(context, int) and 0 < context < _MOST
    if whole and context * max(_rope_factor(config), 1.0) <= tokens:
        return 0
    return tokens


def _rope_factor(config: Config) -> float:
    scaling = config.value(("rope_scaling", "rope_parameters"))
    factor = scaling.get("factor", 1.0) if isinstance(scaling, dict) else 1.0
    return factor if isinstance(factor, int | float) and 0 < factor < _MOST else 1.0
