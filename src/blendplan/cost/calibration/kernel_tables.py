"""Tables of measured kernel times: read, and cut to the rows that a model can learn from.

A folder with ``gemm.parquet``, ``decode_attention.parquet``, ``context_attention.parquet``,
``all_reduce.parquet`` and ``linear_ops.parquet``, any of which may be missing; their times are in
``time_ms``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_names, gpu_spec

TABLES = ("gemm", "decode_attention", "context_attention", "all_reduce", "linear_ops")
# Smaller GEMMs and shorter prefills are launch cost more than anything else.
LEAST_FEATURES = 1024
LEAST_PREFILL_TOKENS = 512
# Measurements repeat the same call, so that a KV cache in L2 is read too fast; see also GemmModel.
L2_MARGIN = 1.5
# Everything else is text.
NUMBERS = (
    *("m", "n", "k", "batch", "ctx_len", "seq_len", "cached_len", "heads", "kv_heads", "head_dim"),
    *("ranks", "bytes", "tp", "num_tokens", "time_ms"),
)
MAY_BE_ZERO = ("cached_len", "n", "k")
LARGEST = 1e12
KV_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True)
class KernelRows:
    """Rows of one table as columns; strings as objects, numbers as float64.

    Attributes:
        columns: by name, all of the same length.
    """

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["time_ms"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def where(self, mask: NDArray[np.bool_]) -> "KernelRows":
        """The rows that the mask marks."""
        return KernelRows({name: column[mask] for name, column in self.columns.items()})

    @property
    def time_s(self) -> NDArray[np.float64]:
        """Measured seconds; float64."""
        return self.columns["time_ms"] * 1e-3


def table_folder(folder: Path) -> Path:
    """The folder itself, or its subfolder ``kernels``, whichever holds tables.

    Raises:
        BlendplanError: neither does.
    """
    for place in (folder, folder / "kernels"):
        if any((place / f"{name}.parquet").is_file() for name in TABLES):
            return place
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise BlendplanError(f"{folder} {reason}; give a folder with tables of kernel times")
    raise BlendplanError(
        f"{folder} holds no table of kernel times; expected one of "
        f"{', '.join(f'{name}.parquet' for name in TABLES)}"
    )


def read_rows(folder: Path, name: str, needed: tuple[str, ...]) -> KernelRows | None:
    """A whole table, or None where the folder has none of that name.

    Raises:
        BlendplanError: unreadable file, missing column, text for numbers or numbers for text,
            numbers that are not positive.
    """
    path = folder / f"{name}.parquet"
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0].rpartition("': ")[2]  # arrow repeats the path
        raise BlendplanError(f"{path} cannot be read as Parquet: {reason}") from None
    if missing := [column for column in (*needed, "time_ms") if column not in table.column_names]:
        raise BlendplanError(
            f"{path} has no column {missing[0]!r}; expected {', '.join((*needed, 'time_ms'))}"
        )
    columns = {}
    for column in table.column_names:
        values = table.column(column).combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_null(values.type) and column not in NUMBERS:
            values = values.cast(pa.string())
        text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        if text == (column in NUMBERS) and (column in needed or column == "time_ms"):
            wanted = "numbers" if text else "text"
            raise BlendplanError(f"{path}: {column} is {values.type}; expected {wanted}")
        if text:
            values = values.fill_null("")
        array = values.to_numpy(zero_copy_only=False)
        columns[column] = array if text else _as_numbers(array)
        if column in NUMBERS and not text:
            _check_numbers(columns[column], f"{path}: {column}", zero=column in MAY_BE_ZERO)
    return KernelRows(columns)


def _as_numbers(array: NDArray[Any]) -> NDArray[np.float64]:
    """NaN throughout where they are something else, such as dates; nothing needs those."""
    try:
        return np.asarray(array, np.float64)
    except (TypeError, ValueError):
        return np.full(len(array), np.nan)


def _check_numbers(values: NDArray[np.float64], where: str, *, zero: bool) -> None:
    wrong = ~(((values > 0) | (zero & (values == 0))) & (values <= LARGEST))
    if wrong.any():
        row = int(wrong.argmax())
        least = "0" if zero else "above 0"
        raise BlendplanError(
            f"{where} is {values[row]:g} in row {row}; expected numbers {least} to {LARGEST:g} "
            "in every row"
        )


def gemm_rows(folder: Path) -> KernelRows | None:
    """GEMMs with random operands and at least 1,024 input and output features.

    Weights that were never filled, or constant, draw less power and run up to 20 % faster.
    """
    rows = read_rows(folder, "gemm", ("gpu", "dtype", "m", "n", "k"))
    if rows is None:
        return None
    keep = (rows["n"] >= LEAST_FEATURES) & (rows["k"] >= LEAST_FEATURES)
    if "operands" in rows.columns:
        keep &= rows["operands"] == "random"
    return rows.where(keep)


def decode_rows(folder: Path) -> KernelRows | None:
    """Decode attention whose KV cache is larger than 1.5 times the L2 cache."""
    needed = ("gpu", "kernel", "kv_dtype", "batch", "ctx_len", "heads", "kv_heads", "head_dim")
    rows = read_rows(folder, "decode_attention", needed)
    if rows is None:
        return None
    element = np.array([KV_BYTES.get(dtype, 2) for dtype in rows["kv_dtype"]], np.float64)
    tokens = rows["batch"] * rows["ctx_len"]
    kv_bytes = 2.0 * tokens * rows["kv_heads"] * rows["head_dim"] * element
    return rows.where(kv_bytes > L2_MARGIN * _l2_bytes(rows["gpu"]))


def context_rows(folder: Path) -> KernelRows | None:
    """Prefill attention of at least 512 new tokens a sequence, with the cached tokens if any."""
    needed = ("gpu", "kernel", "attn_dtype", "kv_dtype", "batch", "seq_len", "heads", "kv_heads")
    rows = read_rows(folder, "context_attention", (*needed, "head_dim"))
    if rows is None:
        return None
    if "cached_len" not in rows.columns:
        rows = KernelRows({**rows.columns, "cached_len": np.zeros(len(rows))})
    return rows.where(rows["seq_len"] >= LEAST_PREFILL_TOKENS)


def all_reduce_rows(folder: Path) -> KernelRows | None:
    """All-reduces within one node.

    A ``node`` is ``<layout>_<GPUs per node>_per_node``: more ranks than that, or one GPU per node,
    cross the network.
    """
    rows = read_rows(folder, "all_reduce", ("gpu", "node", "source", "dtype", "ranks", "bytes"))
    if rows is None:
        return None
    per_node = np.array([_gpus_per_node(node) for node in rows["node"]])
    return rows.where((rows["ranks"] <= per_node) & (per_node > 1))


def linear_rows(folder: Path) -> KernelRows | None:
    """The GEMMs of whole layers: qkv, output, gate-up and down projection."""
    needed = ("gpu", "model", "tp", "op", "num_tokens", "n", "k")
    rows = read_rows(folder, "linear_ops", needed)
    return None if rows is None else rows.where(rows["n"] > 0)


def catalogue_name(gpu: str) -> str | None:
    """Name in the catalogue of a GPU as tables call it, or None."""
    try:
        return gpu_spec(gpu).name
    except BlendplanError:
        return None


def _l2_bytes(gpus: NDArray[Any]) -> NDArray[np.float64]:
    """L2 cache of each row's GPU; of an unknown GPU the largest in the catalogue."""
    largest = max(gpu_spec(name).l2_bytes for name in gpu_names())
    sizes: dict[str, float] = {}
    for gpu in set(gpus):
        known = catalogue_name(gpu)
        sizes[gpu] = float(gpu_spec(known).l2_bytes if known else largest)
    return np.array([sizes[gpu] for gpu in gpus], np.float64)


def _gpus_per_node(node: str | None) -> int:
    """GPUs per node of a node label; without a label, any number."""
    words = (node or "").rsplit("_", 3)
    return int(words[-3]) if words[-2:] == ["per", "node"] and words[-3].isdigit() else 2**30
