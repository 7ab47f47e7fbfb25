"""Parquet and Arrow: opening, and batches of rows within a bound of memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.errors import BlendplanError
from blendplan.names import near
from blendplan.printable import printable, show
from blendplan.requests.csv_files import open_csv
from blendplan.requests.shape import AS_IT_IS, PROMPT_FIELDS, Shape
from blendplan.requests.source import Source

_BATCH_BYTES = 32 << 20
_BUFFER_BYTES = 1 << 20
_LEAST_BYTES_A_TOKEN = 2  # what encodings save on a vocabulary of 2^16 and more


@dataclass(frozen=True)
class OpenTable:
    """A table file, read once from front to back.

    Attributes:
        schema: its columns.
        rows: number of rows, 0 where only reading can tell.
        expected_tokens: a guess, rather too high, at how many token ids it holds; 0 for none.
        batches: its rows in order, each batch checked to be sound Arrow data.
    """

    schema: pa.Schema
    rows: int
    expected_tokens: int
    batches: Iterator[pa.RecordBatch]


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what Arrow raises over a damaged file into one line."""
    try:
        yield
    except BlendplanError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise BlendplanError(
            f"{name}: cannot be read ({reason}); it may be truncated or damaged, write it again"
        ) from error


def open_table(source: Source, shape: Shape = AS_IT_IS) -> OpenTable:
    """Open a Parquet, Arrow or CSV file and check its columns.

    Args:
        source: the file.
        shape: what its rows will become.

    Raises:
        BlendplanError: damaged, without a prompt column, or a plan instead of requests.
    """
    with reading(source.name):
        if source.kind == "csv":
            columns, batches = open_csv(source, shape.columns)
            table = OpenTable(columns, 0, 0, _checked(source.name, batches))
        else:
            table = _open_parquet(source) if source.kind == "parquet" else _open_arrow(source)
        schema, names = table.schema, table.schema.names
    if b"blendplan" in (schema.metadata or {}):
        raise BlendplanError(f"{source.name} is a plan; give the request file it was made from")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BlendplanError(
            f"{source.name} has {names.count(twice[0])} columns named {show(twice[0])}; rename or "
            "remove all but one"
        )
    missing = [name for name in shape.columns if name not in names]
    if missing:
        raise BlendplanError(
            f"{source.name} has no column {show(missing[0])}, only {_listed(names)}; give one of "
            "these"
        )
    if not shape.makes_prompt and not any(name in PROMPT_FIELDS for name in names):
        close = [column for name in names for column in near(name, PROMPT_FIELDS, 1)]
        hint = f'; is "{close[0]}" meant?' if close else ""
        raise BlendplanError(
            f'{source.name} has no column "prompt_token_ids", "prompt" or "messages", only '
            f"{_listed(names)}{hint or '; --prompt-column NAME says which holds the prompts'}"
        )
    return table


def _listed(names: list[str]) -> str:
    return printable(", ".join(names))[:80] or "none"


def _open_parquet(source: Source) -> OpenTable:
    # A buffered stream, not a memory map, so that the file does not count as our memory.
    file = pq.ParquetFile(source.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    metadata = file.metadata
    # Row groups only: a look at the columns of a damaged file can abort the whole process.
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    tokens = size // _LEAST_BYTES_A_TOKEN
    rows_at_once = _BATCH_BYTES * metadata.num_rows // max(4 * tokens, 1)
    batches = file.iter_batches(batch_size=min(max(rows_at_once, 16), 1 << 16))
    return OpenTable(file.schema_arrow, metadata.num_rows, tokens, _checked(source.name, batches))


def _open_arrow(source: Source) -> OpenTable:
    mapped = pa.memory_map(str(source.path))
    if source.kind == "arrow-stream":
        stream = pa.ipc.open_stream(mapped)
        return OpenTable(stream.schema, 0, 0, _checked(source.name, stream))
    file = pa.ipc.open_file(mapped)
    batches = (file.get_batch(i) for i in range(file.num_record_batches))
    return OpenTable(file.schema, 0, 0, _checked(source.name, batches))


def _checked(name: str, batches: Any) -> Iterator[pa.RecordBatch]:
    """Batches whose offsets and text are sound; a damaged one must not crash what reads it."""
    iterator = iter(batches)
    while True:
        with reading(name):
            batch = next(iterator, None)
            if batch is None:
                return
            batch.validate(full=True)
        if batch.num_rows:
            yield batch
