"""What each layer is, from whatever field of a config says so."""

from collections.abc import Callable, Sequence
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.families import Family
from blendplan.hardware.hf_config.fields import Config, seen
from blendplan.hardware.hf_config.layer_words import layer_word
from blendplan.hardware.hf_config.names import LAYERS
from blendplan.hardware.hf_config.windows import sliding_window, stated_window

MOST_LAYERS = 1000
_LISTS = ("layer_types", "layers_block_type", "hybrid_layer_types")


def layer_count(config: Config) -> int:
    """Layers of the decoder.

    Raises:
        BlendplanError: no field says, or there are none or absurdly many.
    """
    listed = config.items(("layers_block_type", "layer_types"))
    pattern = config.value("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern and not listed:
        return _sane(len(pattern), config)
    if not config.says(LAYERS) and listed:
        return _sane(len(listed), config)
    return _sane(config.count(LAYERS), config)


def _sane(layers: int, config: Config) -> int:
    if not 0 < layers <= MOST_LAYERS:
        raise BlendplanError(
            f"{config.where}: {layers} layers; expected between 1 and {MOST_LAYERS}"
        )
    return layers


def layer_kinds(config: Config, family: Family, layers: int) -> list[str]:
    """The kind of each layer: full, sliding, chunked, linear, hybrid, cross, mlp, moe or none.

    The first field that says so decides; then the pattern of the model's class; then whether there
    is a window, which all layers have.
    """
    for source in _SOURCES:
        kinds = source(config, layers)
        if kinds is not None:
            _remark_on_missing_window(config, kinds)
            break
    else:
        kinds = [
            layer_word(word, "pattern", config)
            for word in _repeated(family.pattern.lower() or "f", layers)
        ]
        if family.last_full:
            kinds[-1] = "full"
    return _without_window(config, kinds)


def _remark_on_missing_window(config: Config, kinds: list[str]) -> None:
    """Layers that the file calls sliding, where there is no window, or it is switched off."""
    sliding = kinds.count("sliding") + kinds.count("hybrid sliding")
    if not stated_window(config):
        why = "no field says how wide their window is (sliding_window)"
    elif not config.flag("use_sliding_window", True):
        why = "use_sliding_window is off"
    else:
        return
    if sliding:
        config.remark(
            f"{sliding} layers are called sliding, but {why}: read as full attention, which keeps "
            "the most KV and costs the most"
        )


def _without_window(config: Config, kinds: list[str]) -> list[str]:
    """Sliding and chunked layers that have no window after all are full."""
    sliding = sliding_window(config) > 0
    chunked = config.count("attention_chunk_size", default=0) > 0
    names = {"sliding": sliding, "chunked": chunked}
    return ["full" if not names.get(kind, True) else kind for kind in kinds]


def _repeated(pattern: Sequence[Any], layers: int) -> list[Any]:
    return [pattern[layer % len(pattern)] for layer in range(layers)]


def _listed(config: Config, layers: int) -> list[str] | None:
    for name in _LISTS:
        words = config.words(name)
        if words is not None:
            _check_length(config, name, len(words), layers)
            return [layer_word(word, name, config) for word in words[:layers]]
    words = config.words("block_types")  # RecurrentGemma, whose attention has a window
    if words is None:
        return None
    kinds = [layer_word(word, "block_types", config) for word in _repeated(words, layers)]
    return ["sliding" if kind == "full" else kind for kind in kinds]


def _check_length(config: Config, name: str, listed: int, layers: int) -> None:
    """Refuse a list that is not as long as the decoder, but for layers that only draft.

    Raises:
        BlendplanError: it is shorter, or longer.
    """
    drafting = config.value(("num_nextn_predict_layers", "num_mtp_layers"))
    if listed != layers and not (isinstance(drafting, int) and listed == layers + drafting):
        raise BlendplanError(f"{config.where}: {name} lists {listed} layers of {layers}")


def _pattern_text(config: Config, layers: int) -> list[str] | None:
    name = "hybrid_override_pattern"
    text = config.value(name)
    if not isinstance(text, str) or not text:
        return None
    return [layer_word(letter, name, config) for letter in text[:layers]]


def _numbers(config: Config, layers: int) -> list[str] | None:
    """Lists of numbers by layer."""
    for name, meaning in _NUMBERED.items():
        flags = config.items(name)
        if flags is not None and len(flags) >= layers:
            return [meaning[bool(flag)] for flag in flags[:layers]]
    return None


_NUMBERED = {
    "attn_type_list": ("linear", "full"),  # MiniMax
    "hybrid_layer_pattern": ("full", "sliding"),  # MiMo-V2
    "no_rope_layers": ("full", "chunked"),  # Llama 4: layers with rotary embedding are chunked
    "decoder_attention_types": ("full", "linear"),
}


def _indices(config: Config, layers: int) -> list[str] | None:
    """Numbers of the layers that differ from the rest."""
    inner = config.part("linear_attn_config")
    if inner is not None and inner.items("full_attn_layers") is not None:
        full = inner.items("full_attn_layers") or []
        inner.read.add("kda_layers")
        return ["full" if layer + 1 in full else "linear" for layer in range(layers)]
    for name, (there, elsewhere) in _INDEXED.items():
        found = config.items(name)
        if found is not None:
            _remark_on_strangers(config, name, found, layers)
            return [there if layer in found else elsewhere for layer in range(layers)]
    return None


def _remark_on_strangers(config: Config, name: str, rows: list[Any], layers: int) -> None:
    """Numbers in a list of layers that no layer has."""
    known = range(layers)
    strange = [row for row in rows if not isinstance(row, int) or row not in known]
    if strange:
        shown = ", ".join(map(seen, strange[:3])) + (", ..." if len(strange) > 3 else "")
        config.remark(f"{name} names layers that do not exist among {layers}: {shown}")


_INDEXED = {
    "full_attn_idxs": ("full", "linear"),  # LFM2
    "attn_layer_indices": ("full", "linear"),  # Bamba
    "full_attention_layers": ("full", "linear"),
    "hybrid_layer_ids": ("hybrid", "linear"),  # Zamba2
    "global_attn_idx": ("hybrid", "hybrid sliding"),  # Hymba
    "cross_attention_layers": ("cross", "full"),  # Llama 3.2 Vision
}


def _periods(config: Config, layers: int) -> list[str] | None:
    """Every so many layers one is different."""
    period = config.count("attn_layer_period", default=0)
    if period:
        offset = config.count("attn_layer_offset", default=0)
        there = "hybrid" if config.word("model_type") == "zamba" else "full"
        return [there if layer % period == offset else "linear" for layer in range(layers)]
    period = config.count("mamba_step", default=0)
    if period:
        return _mamba_step(config, layers, period)
    period = config.count("full_attention_interval", default=0)
    if period:
        return ["linear" if (layer + 1) % period else "full" for layer in range(layers)]
    period = config.count("layer_group_size", default=0)
    if period:  # Ling and Ring with linear attention; layers that fill no group are full
        whole = layers // period * period
        last = range(layers)
        return ["linear" if (i + 1) % period and i < whole else "full" for i in last]
    period = config.count("mb_per_layer", default=0)
    if period > 0:  # Phi-4-flash: Mamba every so many layers, then sliding, the middle one full
        return _decoder_decoder(layers, period)
    return None


def _mamba_step(config: Config, layers: int, period: int) -> list[str]:
    """PLaMo 2: one of so many layers has attention, with a window but in those listed."""
    full = config.items("full_attention_idx") or []
    mixed = config.flag("mamba_enabled", True)
    short = layers <= period // 2
    kinds = []
    for layer in range(layers):
        attends = layer == layers - 1 if short else layer % period == period // 2
        if mixed and not attends:
            kinds.append("linear")
        else:
            kinds.append("full" if layer in full else "sliding")
    return kinds


def _decoder_decoder(layers: int, period: int) -> list[str]:
    """The first half alternates recurrence and window; one full layer whose KV the rest reads."""
    kinds = []
    for layer in range(layers):
        if layer % period == 0:
            kinds.append("linear")
        else:
            kinds.append("sliding" if layer < layers // 2 else "full")
    return kinds


def _window_pattern(config: Config, layers: int) -> list[str] | None:
    """A window in all layers but every so many."""
    name = ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
    pattern = config.value(name)
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        letters = _repeated(pattern.lower(), layers)
        kinds = ["full" if letter in "gf" else "sliding" for letter in letters]
        kinds[-1] = "full"
        return kinds
    if isinstance(pattern, list) and pattern:
        return [layer_word(word, name[0], config) for word in _repeated(pattern, layers)]
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        return ["sliding" if (layer + 1) % pattern else "full" for layer in range(layers)]
    interval = config.count("no_rope_layer_interval", default=0)
    if interval and config.count("attention_chunk_size", default=0):
        return ["chunked" if (layer + 1) % interval else "full" for layer in range(layers)]
    return None


def _late_windows(config: Config, layers: int) -> list[str] | None:
    """Qwen: with the switch on, layers from ``max_window_layers`` on have the window."""
    first = config.value("max_window_layers")
    if not config.says("max_window_layers") or not isinstance(first, int):
        return None
    if not config.says(("sliding_window",)) or not config.flag("use_sliding_window", False):
        return ["full"] * layers
    return ["sliding" if layer >= first else "full" for layer in range(layers)]


def _windows_listed(config: Config, layers: int) -> list[str] | None:
    """A window for each layer, ``null`` or 0 for none."""
    for name in ("sliding_window", "interleaved_sliding_window", "window_size"):
        windows = config.items(name)
        if windows is not None:
            return ["sliding" if window else "full" for window in _repeated(windows, layers)]
    return None


_SOURCES: tuple[Callable[[Config, int], list[str] | None], ...] = (
    _listed,
    _pattern_text,
    _numbers,
    _indices,
    _periods,
    _window_pattern,
    _windows_listed,
    _late_windows,
)

LAYER_FIELDS = (
    "layer_types",
    "layers_block_type",
    "block_types",
    "hybrid_layer_types",
    "hybrid_override_pattern",
    *_NUMBERED,
    *_INDEXED,
    "attn_layer_period",
    "attn_layer_offset",
    "full_attention_interval",
    "mamba_step",
    "mamba_enabled",
    "full_attention_idx",
    "layer_group_size",
    "sliding_window_pattern",
    "_sliding_window_pattern",
    "global_attn_every_n_layers",
    "no_rope_layer_interval",
    "max_window_layers",
    "use_sliding_window",
    "num_hidden_layers",
    "index_topk_freq",
    "index_topk_pattern",
    "index_skip_topk_offset",
    "full_attn_mod",
    "vocab_size_per_layer_input",
    "cache_implementation",
)
"""Fields that say what layers are, all of which are understood; one of them decides."""
