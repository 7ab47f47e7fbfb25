"""How many bits the weights of each part of a model have, as its files say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.fields import Config, seen
from blendplan.hardware.hf_config.modules import ANY_LAYER, modules_named
from blendplan.hardware.hf_config.names import EXPERTS
from blendplan.hardware.hf_config.schemes import (
    ALGORITHMS,
    EXPERTS_ALONE,
    MXFP4,
    NVFP4,
    PLAIN,
    bits_of_weights,
    groups,
    weight_bits,
)

_SKIPS = ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "exclude")


@dataclass(frozen=True)
class Bits:
    """Bits per weight by part of a model.

    Attributes:
        parts: of what is quantised; a part that is missing has 16.
        layers: of the parts of single layers that differ from it.
        kv: bits per element of the KV cache.
    """

    parts: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[tuple[int, str], float] = field(default_factory=dict)
    kv: float = PLAIN

    def mixer(self, layer: int) -> float:
        """Attention and recurrences."""
        return self._of(layer, "mixer")

    def dense(self, layer: int) -> float:
        """Dense MLPs."""
        return self._of(layer, "dense")

    def experts(self, layer: int) -> float:
        """Routed experts."""
        return self._of(layer, "experts")

    def shared(self, layer: int) -> float:
        """Experts that every token visits."""
        return self._of(layer, "shared")

    @property
    def head(self) -> float:
        """The output head."""
        return self.parts.get("head", PLAIN)

    def _of(self, layer: int, part: str) -> float:
        return self.layers.get((layer, part), self.parts.get(part, PLAIN))


def bits_of(
    config: Config, outer: Mapping[str, Any], beside: Mapping[str, Any], layers: int
) -> Bits:
    """Bits of a model.

    Args:
        config: of the language model.
        outer: the whole file, where the language model is a part of it.
        beside: ``hf_quant_config.json``; empty where there is none.
        layers: of the decoder.

    Raises:
        BlendplanError: a scheme that is not known.
    """
    quantisation = _stated(config, outer)
    if not quantisation:
        quantisation = _stated_beside(config, beside)
    if not quantisation:
        return _experts_only(config, Bits())
    return _experts_only(config, _read(config, quantisation, layers))


def _stated(config: Config, outer: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of its quantisation; empty where it says nothing.

    Raises:
        BlendplanError: it is no object.
    """
    for name in ("quantization_config", "compression_config"):
        for holder in (config.values, outer):
            found = holder.get(name)
            if found is None:
                continue
            if not isinstance(found, Mapping):
                raise BlendplanError(f"{config.where}: {name} is not an object but {seen(found)}")
            if found:
                return dict(found)
            config.remark(f"{name} is empty: weights are taken to have 16 bits")
    return {}


def _stated_beside(config: Config, beside: Mapping[str, Any]) -> dict[str, Any]:
    """The same of ``hf_quant_config.json``.

    Raises:
        BlendplanError: its ``quantization`` is no object.
    """
    found = beside.get("quantization", beside) if isinstance(beside, Mapping) else beside
    if not isinstance(found, Mapping):
        raise BlendplanError(
            f"{config.where}: quantization in the hf_quant_config.json beside it is not an object "
            f"but {seen(found)}"
        )
    if found.get("quant_algo"):
        return {"quant_method": "modelopt", **found}
    if beside:
        config.remark("hf_quant_config.json names no quant_algo: weights are taken to have 16 bits")
    return {}


def _read(config: Config, values: Mapping[str, Any], layers: int) -> Bits:
    method = str(values.get("quant_method", "")).lower()
    if not method and values.get("quant_algo"):
        method = "modelopt"
    weights = weight_bits(config, method, values)
    parts = dict.fromkeys(("mixer", "dense", "experts", "shared"), weights)
    has_experts = (config.value(EXPERTS) or 0) != 0
    if has_experts and method in EXPERTS_ALONE:
        parts = {"experts": weights}
    of_layers: dict[tuple[int, str], float] = {}
    if str(values.get("quant_algo", "")).upper() == "MIXED_PRECISION":
        parts, of_layers = _mixed(config, values)
        if method == "fp8":
            parts = dict.fromkeys(("mixer", "dense", "shared"), 8.0) | parts
    elif groups(values) and method == "compressed-tensors":
        general, named = _by_target(config, values)
        parts = (parts if general else {}) | named
    skipped = _skipped(values)
    if not (method == "fp8" and values.get("moe_quant_algo")):  # there, a scheme leaves it to fp8
        _leave_out(config, parts, of_layers, skipped, layers)
    return Bits(parts, of_layers, _kv_bits(config, values))


def _by_target(config: Config, values: Mapping[str, Any]) -> tuple[bool, dict[str, float]]:
    """Whether a group means all linear layers, and the bits of the parts that groups name."""
    general, found = False, dict[str, float]()
    for group in groups(values):
        targets, weights = group.get("targets"), group.get("weights")
        if not isinstance(weights, Mapping):
            continue
        if not isinstance(targets, list):
            general = True
            continue
        bits = bits_of_weights(config, weights)
        for target in targets:
            if target in ("Linear", "FusedMoE"):
                general = True
            else:
                found |= {part: bits for _, part in modules_named(str(target)).parts}
    return general, found


def _mixed(
    config: Config, values: Mapping[str, Any]
) -> tuple[dict[str, float], dict[tuple[int, str], float]]:
    """``quantized_layers`` names modules with their scheme."""
    named = values.get("quantized_layers")
    parts: dict[str, float] = {}
    of_layers: dict[tuple[int, str], float] = {}
    items = named.items() if isinstance(named, Mapping) else ()
    cut = any(str(name).startswith("...") for name, _ in items)
    for name, scheme in items:
        algorithm = str(scheme.get("quant_algo", "")) if isinstance(scheme, Mapping) else ""
        bits = ALGORITHMS.get(algorithm.upper())
        if bits is None:
            continue
        for layer, part in modules_named(str(name)).parts:
            if cut or layer == ANY_LAYER:
                parts[part] = bits
            else:
                of_layers[layer, part] = bits
    algorithm = str(values.get("moe_quant_algo") or "").upper()
    if algorithm in ALGORITHMS:
        parts["experts"] = ALGORITHMS[algorithm]
    if cut or not items:
        config.remark(
            "quantized_layers is not listed in full: modules that are missing are taken to have "
            "the bits of those listed, or 16; the bytes of the weights follow"
        )
        if "experts" not in parts and parts:
            parts["experts"] = parts["shared"] = min(parts.values())
    return parts, of_layers


def _skipped(values: Mapping[str, Any]) -> list[str]:
    for name in _SKIPS:
        skipped = values.get(name)
        if isinstance(skipped, list):
            return [str(each) for each in skipped]
    return []


def _leave_out(
    config: Config,
    parts: dict[str, float],
    of_layers: dict[tuple[int, str], float],
    skipped: list[str],
    layers: int,
) -> None:
    """Set what is left as it was to 16 bits."""
    cut = any(name.startswith("...") for name in skipped)
    if cut:
        config.remark(
            "the list of modules that are not quantised is cut: what it says of some layers is "
            "taken for all; the bytes of the weights follow"
        )
    for name in skipped:
        for layer, part in modules_named(name).parts:
            if layer == ANY_LAYER or cut:
                parts.pop(part, None)
            elif layer < layers:
                of_layers[layer, part] = PLAIN


def _experts_only(config: Config, bits: Bits) -> Bits:
    """``expert_dtype``: routed experts in fewer bits than the rest (DeepSeek V4)."""
    word = config.word("expert_dtype")
    if not word:
        return bits
    known = {"fp4": MXFP4, "mxfp4": MXFP4, "nvfp4": NVFP4, "fp8": 8.0, "bf16": PLAIN}
    if word not in known:
        config.remark(f"expert_dtype {word!r} is not known; the bytes of the experts may be wrong")
        return bits
    if bits.parts.get("experts", PLAIN) < 8.0:  # a scheme named for them counts
        return bits
    return Bits({**bits.parts, "experts": known[word]}, bits.layers, bits.kv)


def _kv_bits(config: Config, values: Mapping[str, Any]) -> float:
    scheme = values.get("kv_cache_scheme") or values.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        return float(Config(scheme, config.where).count("num_bits", default=8) or 8)
    if not scheme:
        return PLAIN
    return 4.5 if "FP4" in str(scheme).upper() else 8.0
