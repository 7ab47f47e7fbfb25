"""How many bits a weight has under the schemes of published models, scales included."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import MXFP8_BITS, NVFP4_BITS
from blendplan.hardware.hf_config.fields import Config, seen
from blendplan.printable import show

PLAIN = 16.0
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
        return 4.5 if values.get("load_in_4bit") or values.get("_load_in_4bit") else 8.0
    if method.removesuffix("_marlin") in _GROUPED or "auto-round" in method:
        bits, group = values.get("bits", values.get("nbits")), values.get("group_size")
        inner = values.get("quant_config")
        if isinstance(inner, Mapping) and isinstance(inner.get("weight_quant_params"), Mapping):
            bits = inner["weight_quant_params"].get("nbits")  # hqq
            group = inner["weight_quant_params"].get("group_size")
        return grouped(bits, group, where)
    if method in ("compressed-tensors", "compressed_tensors"):
        return next(iter(_bits_of_groups(config, values)), PLAIN)
    if method == "quark":
        scheme = str(values.get("global_quant_config", ""))
        return MXFP4 if "fp4" in scheme else 8.0
    if method == "torchao":
        return 4.5 if "int4" in str(values.get("quant_type", "")).lower() else 8.0
    raise BlendplanError(f"{where}: quantisation {seen(method)} is not known; known are {KNOWN}")


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
        BlendplanError: a number of bits that no scheme has.
    """
    if not isinstance(bits, int) or bits not in (2, 3, 4, 8):
        raise BlendplanError(f"{where}: weights of {show(bits)} bits; expected 2, 3, 4 or 8")
    if bits == 8:
        return 8.0
    size = group if isinstance(group, int) and 0 < group < 10**9 else math.inf
    return bits + (16 + (0 if symmetric else bits)) / size
