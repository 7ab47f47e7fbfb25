"""How many bits a weight has under the schemes of published models, scales included."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import MXFP8_BITS, NVFP4_BITS
from blendplan.hardware.hf_config.fields import Config, seen
from blendplan.printable import show

PLAIN = 16.0
_TORCHAO_GROUP = 128
# Bits per weight with the scales of groups of them.
NVFP4 = NVFP4_BITS
MXFP4 = 4.25  # 8 bits for 32 weights
MXFP8 = MXFP8_BITS
ALGORITHMS = {
    "FP8": 8.0,
    "FP8_PER_CHANNEL_PER_TOKEN": 8.0,
    "FP8_PB_WO": 8.0,
    "FP8_BLOCK_SCALES": 8.0,
    "MXFP8": MXFP8,
    "NVFP4": NVFP4,
    "NVFP4_AWQ": NVFP4,
    "W4A8_NVFP4_FP8": NVFP4,
    "MXFP4": MXFP4,
    "W4A8_MXFP4_FP8": MXFP4,
    "INT8": 8.0,
    "INT8_SQ": 8.0,
    "W8A8_SQ_PER_CHANNEL": 8.0,
    "W4A16": 4.125,
    "INT4_AWQ": 4.125,
    "W4A16_AWQ": 4.125,
    "W4A8_AWQ": 4.125,
    "FP4": MXFP4,
    "BF16": PLAIN,
}
_EIGHT = ("fp8", "fbgemm_fp8", "ptpc_fp8", "experts_int8", "eetq", "finegrained_fp8")
EXPERTS_ALONE = ("mxfp4", "experts_int8", "gpt_oss_mxfp4")  # kernels for nothing else
_GROUPED = ("awq", "gptq", "auto-round", "autoround", "auto_round", "inc", "hqq")
KNOWN = (
    "fp8, awq, gptq, bitsandbytes, compressed-tensors, modelopt, mxfp4, mxfp8, hqq, torchao and "
    "quark"
)


def weight_bits(config: Config, method: str, values: Mapping[str, Any]) -> float:
    where = config.where
    algorithm = str(values.get("quant_algo") or "").upper()
    if method in _EIGHT:
        return 8.0
    if "mxfp4" in method:
        return MXFP4
    if "mxfp8" in method:  # MiniMax calls it mxfp8, modelopt modelopt_mxfp8
        return MXFP8
    if method.startswith("modelopt"):
        if algorithm == "MIXED_PRECISION":
            return PLAIN
        if algorithm in ALGORITHMS:
            return ALGORITHMS[algorithm]
        if algorithm:
            raise BlendplanError(
                f"{where}: quant_algo {seen(algorithm)} is not known; known are "
                f"{', '.join(ALGORITHMS)}"
            )
        return NVFP4 if "fp4" in method else 8.0
    if method == "bitsandbytes":
        return _bitsandbytes(values)
    if method.removesuffix("_marlin") in _GROUPED or "auto-round" in method:
        bits, group = values.get("bits", values.get("nbits")), values.get("group_size")
        inner = values.get("quant_config")
        if isinstance(inner, Mapping) and isinstance(inner.get("weight_quant_params"), Mapping):
            bits = inner["weight_quant_params"].get("nbits")  # hqq
            group = inner["weight_quant_params"].get("group_size")
        return grouped(bits, group, where)
    if method in ("compressed-tensors", "compressed_tensors"):
        return _compressed_tensors(config, values)
    if method == "quark":
        scheme = str(values.get("global_quant_config", ""))
        return MXFP4 if "fp4" in scheme else 8.0
    if method == "torchao":
        return _torchao(values, where)
    raise BlendplanError(f"{where}: quantisation {seen(method)} is not known; known are {KNOWN}")


def _bitsandbytes(values: Mapping[str, Any]) -> float:
    """A scale of 32 bits for 64 weights; or one of 8 bits, and one of 32 for 256 of those."""
    if not (values.get("load_in_4bit") or values.get("_load_in_4bit")):
        return 8.0
    twice = values.get("bnb_4bit_use_double_quant")
    return 4.0 + (8 + 32 / 256 if twice else 32) / 64


def _torchao(values: Mapping[str, Any], where: str) -> float:
    """Integers of 4 bits have a scale and a zero point of 16 bits for each group of weights."""
    if "int4" not in str(values.get("quant_type", "")).lower():
        return 8.0
    stated = _found_within(values, "group_size")
    return 4.0 + 32 / _group_size(_TORCHAO_GROUP if stated is None else stated, where)


def _found_within(values: Mapping[str, Any], name: str) -> Any:
    """The first value of that name in an object or the objects within it."""
    if values.get(name) is not None:
        return values[name]
    inner = (each for each in values.values() if isinstance(each, Mapping))
    return next((found for each in inner if (found := _found_within(each, name)) is not None), None)


def _compressed_tensors(config: Config, values: Mapping[str, Any]) -> float:
    """Bits of the first group that has weights; what is not read of the others is a remark."""
    _check_groups(config, values.get("config_groups"))
    sparsity = values.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format") not in (None, "dense"):
        config.remark(
            f"sparsity_config ({seen(sparsity['format'])}) is not modelled: weights that are zero "
            "count like the others"
        )
    found = next(iter(_bits_of_groups(config, values)), None)
    if found is None and not values.get("kv_cache_scheme"):
        config.remark(
            "compressed-tensors without config_groups that have weights: they are taken to have "
            "16 bits"
        )
    return PLAIN if found is None else found


def _check_groups(config: Config, stated: Any) -> None:
    """Refuse groups that are no objects, or whose weights are none."""
    members = list(stated.values()) if isinstance(stated, Mapping) else [stated] if stated else []
    for group in members:
        weights = group.get("weights") if isinstance(group, Mapping) else group
        whole = isinstance(group, Mapping) and isinstance(weights, Mapping | None)
        if not whole:
            raise BlendplanError(
                f"{config.where}: config_groups has {seen(weights)}; expected objects with weights "
                "and targets"
            )


def groups(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = values.get("config_groups")
    found = groups.values() if isinstance(groups, Mapping) else ()
    return [group for group in found if isinstance(group, Mapping)]


def _bits_of_groups(config: Config, values: Mapping[str, Any]) -> Iterable[float]:
    for group in groups(values):
        weights = group.get("weights")
        if isinstance(weights, Mapping):
            yield bits_of_weights(config, weights)


def bits_of_weights(config: Config, weights: Mapping[str, Any]) -> float:
    bits, size = weights.get("num_bits"), weights.get("group_size")
    if bits == 4 and weights.get("type") == "float":
        return NVFP4 if size == 16 else MXFP4
    if bits == 8 and weights.get("type") == "float" and size == 32:
        return MXFP8
    return grouped(bits, size, config.where, symmetric=bool(weights.get("symmetric")))


def grouped(bits: object, group: object, where: str, *, symmetric: bool = False) -> float:
    """Bits per weight with a 16-bit scale, and a zero point, for each group of weights.

    Raises:
        BlendplanError: a number of bits, or a size of groups, that no scheme has.
    """
    if not isinstance(bits, int) or bits not in (2, 3, 4, 8):
        raise BlendplanError(f"{where}: weights of {show(bits)} bits; expected 2, 3, 4 or 8")
    size = _group_size(group, where)
    return 8.0 if bits == 8 else bits + (16 + (0 if symmetric else bits)) / size


def _group_size(value: object, where: str) -> float:
    """Weights that share a scale; infinite for -1 or none, where those of a whole row do.

    Raises:
        BlendplanError: no such number.
    """
    if value is None or value == -1:
        return math.inf
    size = Config({}, where).whole("group_size", value)
    if not size:
        raise BlendplanError(f"{where}: group_size is 0; expected at least 1, or -1 for whole rows")
    return float(size)
