"""The operator models of a GPU: fitted to measured kernels where there are any, else stated."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from blendplan.cost.operators.all_reduce import AllReduceModel, Protocol
from blendplan.cost.operators.decode_attention import (
    DecodeAttentionModel,
    DecodeAttentionParameters,
)
from blendplan.cost.operators.gemm import GemmModel, GemmParameters
from blendplan.cost.operators.prefill_attention import (
    PrefillAttentionModel,
    PrefillAttentionParameters,
)
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import MXFP8_BITS, NVFP4_BITS, GpuSpec

P = TypeVar("P", GemmParameters, DecodeAttentionParameters, PrefillAttentionParameters)

# For GPUs that nobody has measured: round values between those of the five that were.
UNMEASURED_GEMM = GemmParameters(
    launch_s=2.5e-6,
    flop_share=0.75,
    sustained_loss=0.1,
    bandwidth_share=0.8,
    l2_multiple=4.5,
    tile_s=1e-6,
    tail_share=0.3,
    split_s=2e-6,
    tile_sharpness=4.0,
    sharpness=3.0,
    warm_multiple=1.5,
    quantise_passes=2.0,
)
UNMEASURED_DECODE = DecodeAttentionParameters(
    launch_s=12e-6,
    bandwidth_share=0.85,
    unit_s=2e-6,
    sm_multiple=2.0,
    units_per_sm=2.0,
    tile_tokens=128.0,
    most_splits=32.0,
    most_splits_ungrouped=32.0,
    tail_share=0.4,
    query_passes=2.0,
    switch_tokens=2048.0,
    switch_slowdown=0.0,
    context_s=0.0,
    sharpness=4.0,
)
UNMEASURED_PREFILL = PrefillAttentionParameters(
    launch_s=10e-6,
    unit_s=1e-6,
    tile_tokens=64.0,
    units_per_sm=1.0,
    tail_share=0.3,
    sharpness=1.5,
    token_s=1e-9,
    query_passes=1.0,
    kv_passes=3.0,
    flop_share_64=0.45,
    flop_share_128=0.58,
    flop_share_192=0.6,
    flop_share_256=0.6,
    flop_share_512=0.4,
)
UNMEASURED_REDUCE_S = 10e-6
UNMEASURED_LINK_SHARE = 0.75
RANKS = (2, 4, 8, 16)


class Operators(NamedTuple):
    """Operator models of one GPU for one model's dtypes.

    Attributes:
        gemm: linear layers, in the dtype of most of the model's weights.
        head: output head and other layers that stay in bf16, or are expanded to it.
        quantised: linear layers whose weights are multiplied as they are, by their bits.
        decode, prefill: attention.
        all_reduce: within the node.
        measured: names of the operators that are fitted to measurements.
        kernels: attention kernels and all-reduce source that the fits are of.
    """

    gemm: GemmModel
    head: GemmModel
    quantised: Mapping[float, GemmModel]
    decode: DecodeAttentionModel
    prefill: PrefillAttentionModel
    all_reduce: AllReduceModel
    measured: tuple[str, ...]
    kernels: dict[str, str]


def operators(gpu: GpuSpec, *, weight_bits: float = 16.0, kv_bits: float = 16.0) -> Operators:
    """The operator models of a GPU.

    Args:
        gpu: with or without fitted parameters.
        weight_bits: of most weights; 8 picks the fp8 GEMMs where the GPU has fp8 units, 8.25 does
            where they scale groups of weights, 4.5 picks the fp4 GEMMs where it has those.
        kv_bits: 8 picks decode attention over an fp8 KV cache.

    Raises:
        BlendplanError: parameters in a profile that are not what the operators need.
    """
    purpose = "add it to the profile, or name a base GPU there"
    gpu.require("flop_per_s", "bandwidth_bytes_per_s", "sm_count", purpose=purpose)
    kv = "fp8" if kv_bits == 8 else "bf16"
    dtypes = {8.0: "fp8"} if gpu.fp8_flop_per_s else {}
    if gpu.scales_groups:
        dtypes[MXFP8_BITS] = "fp8"
    if gpu.fp4_flop_per_s:
        dtypes[NVFP4_BITS] = "fp4"
    gemm, gemm_measured = _gemm(gpu, dtypes.get(weight_bits, "bf16"))
    head, _ = _gemm(gpu, "bf16")
    kernels: dict[str, str] = {}
    decode = _attention(gpu, "decode_attention", kv, DecodeAttentionParameters, kernels)
    quantised = "bf16_fp8_kv" if kv == "fp8" else "bf16"
    written = quantised if _table(gpu, "default", "prefill_attention", quantised) else "bf16"
    prefill = _attention(gpu, "prefill_attention", written, PrefillAttentionParameters, kernels)
    all_reduce = _all_reduce(gpu, kernels)
    return Operators(
        gemm=gemm,
        head=head,
        quantised={bits: _gemm(gpu, dtype)[0] for bits, dtype in dtypes.items()},
        decode=DecodeAttentionModel(gpu, kv_bits, decode or UNMEASURED_DECODE),
        prefill=PrefillAttentionModel(gpu, 16.0, kv_bits, prefill or UNMEASURED_PREFILL),
        all_reduce=all_reduce,
        measured=(*(("gemm",) if gemm_measured else ()), *kernels),
        kernels=kernels,
    )


def parameters_from(kind: type[P], table: object, where: str) -> P:
    """Parameters from a table of numbers.

    Raises:
        BlendplanError: not a table, or fields missing, unknown or not numbers.
    """
    if not isinstance(table, Mapping) or set(table) != set(kind._fields):
        raise BlendplanError(f"{where}: expected the fields {', '.join(kind._fields)}")
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BlendplanError(f"{where}: {name} is {value!r}; expected a number")
    return kind(**{name: float(value) for name, value in table.items()})


def all_reduce_from(table: object, where: str) -> AllReduceModel:
    """The all-reduce model of a table of protocols by number of GPUs.

    Raises:
        BlendplanError: not such a table.
    """
    try:
        protocols = {
            int(ranks): [Protocol(*map(float, row)) for row in rows]
            for ranks, rows in dict(table).items()  # type: ignore[call-overload]
        }
    except (TypeError, ValueError):
        protocols = {}
    if not protocols or not all(protocols.values()):
        raise BlendplanError(
            f"{where}: expected rows of largest bytes, latency and seconds per byte by GPU count"
        )
    return AllReduceModel(protocols)


def _gemm(gpu: GpuSpec, dtype: str) -> tuple[GemmModel, bool]:
    table = _table(gpu, "gemm", dtype)
    if table is None:
        parameters = UNMEASURED_GEMM
        if dtype == "bf16":
            parameters = parameters._replace(quantise_passes=0.0)
        return GemmModel(gpu, dtype, parameters), False
    where = f"GPU {gpu.name}: fitted.gemm.{dtype}"
    return GemmModel(gpu, dtype, parameters_from(GemmParameters, table, where)), True


def _attention(
    gpu: GpuSpec, operator: str, dtype: str, kind: type[P], kernels: dict[str, str]
) -> P | None:
    """Parameters of the default kernel, whose name is noted in ``kernels``; None if unmeasured."""
    kernel = _table(gpu, "default", operator, dtype)
    table = _table(gpu, operator, dtype, str(kernel))
    if table is None:
        return None
    kernels[operator] = str(kernel)
    return parameters_from(kind, table, f"GPU {gpu.name}: fitted.{operator}.{dtype}.{kernel}")


def _all_reduce(gpu: GpuSpec, kernels: dict[str, str]) -> AllReduceModel:
    source = _table(gpu, "default", "all_reduce")
    table = _table(gpu, "all_reduce", str(source))
    if table is not None:
        kernels["all_reduce"] = str(source)
        return all_reduce_from(table, f"GPU {gpu.name}: fitted.all_reduce.{source}")
    rate = UNMEASURED_LINK_SHARE * gpu.link_bytes_per_s
    return AllReduceModel(
        {
            ranks: [
                Protocol(
                    float("inf"),
                    UNMEASURED_REDUCE_S,
                    2.0 * (ranks - 1) / ranks / rate if rate else 0,
                )
            ]
            for ranks in RANKS
        }
    )


def _table(gpu: GpuSpec, *path: str) -> Any:
    """What is at a path in the fitted tables, or None."""
    place: Any = gpu.fitted
    for step in path:
        if not isinstance(place, Mapping) or step not in place:
            return None
        place = place[step]
    return place
