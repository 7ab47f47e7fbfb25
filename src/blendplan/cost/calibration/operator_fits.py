"""Fits: which operator model learns from which rows of a folder of tables, and what it predicts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibration import kernel_tables
from blendplan.cost.calibration.kernel_tables import KernelRows
from blendplan.cost.operators.all_reduce import AllReduceModel, Protocol
from blendplan.cost.operators.decode_attention import (
    DecodeAttentionModel,
    DecodeAttentionParameters,
)
from blendplan.cost.operators.gemm import OPERAND_SETS, GemmModel, GemmParameters
from blendplan.cost.operators.prefill_attention import (
    PrefillAttentionModel,
    PrefillAttentionParameters,
)
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_spec

Column = NDArray[Any]
BITS = {"bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "fp8_block": 8.0}
# Fewer rows than this say nothing about a kernel's a dozen parameters.
LEAST_ROWS = 100


class Fit(NamedTuple):
    """One operator, kernel and dtype on one GPU, and the rows that measure it.

    Attributes:
        operator: ``gemm``, ``decode_attention``, ``prefill_attention`` or ``all_reduce``.
        spec: the GPU.
        dtype: as reports name it.
        path: where its parameters go under the operator in ``GpuSpec.fitted``: dtype and kernel.
        rows: measurements.
        groups: rows of equal number are left out together in cross-validation: a (n, k) shape, a
            pair of head counts, a message size; int64.
    """

    operator: str
    spec: GpuSpec
    dtype: str
    path: tuple[str, ...]
    rows: KernelRows
    groups: NDArray[np.int64]

    @property
    def gpu(self) -> str:
        """Name of the GPU."""
        return self.spec.name


def fits(folder: Path, gpu: GpuSpec | None = None, called: str = "") -> Iterator[Fit]:
    """All fits that the tables of a folder allow, for one GPU or for every one of the catalogue.

    Args:
        folder: with tables.
        gpu: whose rows to use.
        called: one more name that the tables have for it.

    Raises:
        BlendplanError: no tables, or bad ones.
    """
    folder = kernel_tables.table_folder(folder)
    for rows, spec in _by_gpu(kernel_tables.gemm_rows(folder), gpu, called):
        for key, part in _parts(rows, ("dtype",)):
            yield Fit("gemm", spec, key[0], key, part, _groups(part, ("n", "k")))
    for rows, spec in _by_gpu(kernel_tables.decode_rows(folder), gpu, called):
        for key, part in _parts(rows, ("kv_dtype", "kernel")):
            groups = _groups(part, ("heads", "kv_heads"))
            yield Fit("decode_attention", spec, key[0], key, part, groups)
    for rows, spec in _by_gpu(kernel_tables.context_rows(folder), gpu, called):
        for key, part in _parts(rows, ("attn_dtype", "kv_dtype", "kernel")):
            attention, kv, kernel = key
            dtype = attention if attention == kv else f"{attention}_{kv}_kv"
            groups = _groups(part, ("heads", "kv_heads"))
            yield Fit("prefill_attention", spec, dtype, (dtype, kernel), part, groups)
    for rows, spec in _by_gpu(kernel_tables.all_reduce_rows(folder), gpu, called):
        for key, part in _parts(rows, ("dtype", "source")):
            groups = _groups(part, ("bytes",))
            yield Fit("all_reduce", spec, key[0], (key[1],), part, groups)


def enough(fit: Fit) -> bool:
    """Whether there are rows enough to learn from."""
    return fit.operator == "all_reduce" or len(fit.rows) >= LEAST_ROWS


def learn(fit: Fit, rows: KernelRows | None = None) -> dict[str, Any]:
    """Parameters fitted to the rows of a fit, or to some of them, as a TOML table."""
    rows = fit.rows if rows is None else rows
    if fit.operator == "all_reduce":
        protocols = AllReduceModel().fit(rows["ranks"], rows["bytes"], rows.time_s).protocols_
        return {
            str(ranks): [[p.up_to_bytes, p.latency_s, p.s_per_byte] for p in table]
            for ranks, table in protocols.items()
        }
    gpu = fit.spec
    if fit.operator == "gemm":
        gemm = GemmModel(gpu, fit.dtype).fit(rows["m"], rows["n"], rows["k"], rows.time_s)
        return gemm.parameters_._asdict()
    if fit.operator == "decode_attention":
        decode = DecodeAttentionModel(gpu, BITS.get(fit.dtype, 16.0))
        return decode.fit(*_decode_columns(rows), rows.time_s).parameters_._asdict()
    prefill = PrefillAttentionModel(gpu, *_prefill_bits(fit.dtype))
    return prefill.fit(*_prefill_columns(rows), rows.time_s).parameters_._asdict()


def foretell(fit: Fit, table: Mapping[str, Any], rows: KernelRows) -> NDArray[np.float64]:
    """Seconds that parameters predict for rows, under the conditions they were measured in."""
    if fit.operator == "all_reduce":
        return all_reduce_model(table).predict(rows["ranks"], rows["bytes"])
    gpu = fit.spec
    if fit.operator == "gemm":
        gemm = GemmModel(gpu, fit.dtype, GemmParameters(**table))
        return gemm.predict(rows["m"], rows["n"], rows["k"], operand_sets=OPERAND_SETS)
    if fit.operator == "decode_attention":
        parameters = DecodeAttentionParameters(**table)
        decode = DecodeAttentionModel(gpu, BITS.get(fit.dtype, 16.0), parameters)
        return decode.predict(*_decode_columns(rows))
    prefill = PrefillAttentionModel(
        gpu, *_prefill_bits(fit.dtype), PrefillAttentionParameters(**table)
    )
    return prefill.predict(*_prefill_columns(rows))


def all_reduce_model(table: Mapping[str, Any]) -> AllReduceModel:
    """The model of a TOML table of protocols by number of GPUs."""
    return AllReduceModel(
        {int(ranks): [Protocol(*row) for row in protocols] for ranks, protocols in table.items()}
    )


def default_kernel(found: Sequence[Fit]) -> str:
    """The kernel that a planner should count on: vLLM's, and of those the one measured most."""

    def weight(fit: Fit) -> tuple[bool, int]:
        engine = fit.rows.columns.get("engine")
        vllm = engine is not None and len(engine) > 0 and engine[0] == "vllm"
        return vllm, int((fit.rows["head_dim"] == 128).sum())

    return max(found, key=weight).path[-1]


def _by_gpu(
    rows: KernelRows | None, gpu: GpuSpec | None, called: str
) -> Iterator[tuple[KernelRows, GpuSpec]]:
    """Rows by GPU, under whatever names a table has for it; GPUs that are not known are skipped."""
    if rows is None:
        return
    specs: dict[str, GpuSpec] = {}
    labels: dict[str, list[str]] = {}
    for label in sorted(set(rows["gpu"])):
        name = kernel_tables.catalogue_name(label)
        if gpu is not None and (gpu.name in (label, name) or label == (called or gpu.name)):
            specs[gpu.name] = gpu
            labels.setdefault(gpu.name, []).append(label)
        elif gpu is None and name is not None:
            specs[name] = gpu_spec(name)
            labels.setdefault(name, []).append(label)
    for name, spec in specs.items():
        yield rows.where(np.isin(rows["gpu"].astype(str), labels[name])), spec


def _parts(rows: KernelRows, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], KernelRows]]:
    """Rows by the values of some text columns, in the order of the values."""
    present = list(zip(*(rows[key] for key in keys), strict=True))
    for value in sorted(set(present)):
        mask = np.logical_and.reduce([rows[key] == v for key, v in zip(keys, value, strict=True)])
        yield value, rows.where(mask)


def _groups(rows: KernelRows, keys: tuple[str, ...]) -> NDArray[np.int64]:
    """Numbers of the distinct combinations of some columns, row by row."""
    values = np.column_stack([rows[key] for key in keys])
    return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _decode_columns(rows: KernelRows) -> tuple[Column, Column, Column, Column, Column]:
    return (
        rows["batch"],
        rows["ctx_len"],
        rows["heads"],
        rows["kv_heads"],
        rows["head_dim"],
    )


def _prefill_columns(rows: KernelRows) -> tuple[Column, Column, Column, Column, Column, Column]:
    return (
        rows["batch"],
        rows["seq_len"],
        rows["cached_len"],
        rows["heads"],
        rows["kv_heads"],
        rows["head_dim"],
    )


def _prefill_bits(dtype: str) -> tuple[float, float]:
    """Bits of the matrix products and of the KV cache."""
    attention, _, kv = dtype.removesuffix("_kv").partition("_")
    return BITS.get(attention, 16.0), BITS.get(kv or attention, 16.0)
