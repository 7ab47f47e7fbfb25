"""Parquet and Arrow: opening, and batches of rows within a bound of memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.errors import BlendplanError
from blendplan.names import near
from blendplan.printable import show
from blendplan.requests.source import Source

PROMPT_COLUMNS = ("prompt_token_ids", "prompt", "messages", "body")
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


def open_table(source: Source) -> OpenTable:
    """Open a Parquet or Arrow file and check its columns.

    Raises:
        BlendplanError: damaged, without a prompt column, or a plan instead of requests.
    """
    with reading(source.name):
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
    if not any(name in names for name in PROMPT_COLUMNS):
        close = [column for name in names for column in near(name, PROMPT_COLUMNS, 1)]
        hint = f'; is "{close[0]}" meant?' if close else ""
        raise BlendplanError(
            f'{source.name} has no column "prompt_token_ids", "prompt" or "messages", only '
            f"{', '.join(names)[:80] or 'none'}{hint}"
        )
    return table


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
