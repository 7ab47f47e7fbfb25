"""Parquet and Arrow: opening, and batches of rows within a bound of memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from blendplan.errors import BlendplanError
from blendplan.names import near
from blendplan.printable import printable, show
from blendplan.requests.prompt_column import PROMPT_FIELDS
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


def open_table(source: Source, prompt_column: str | None = None) -> OpenTable:
    """Open a Parquet, Arrow or CSV file and check its columns.

    Args:
        source: the file.
        prompt_column: the column that holds prompts, where it has none of the usual names.

    Raises:
        BlendplanError: damaged, without a prompt column, or a plan instead of requests.
    """
    with reading(source.name):
        if source.kind == "csv":
            table = _open_csv(source, prompt_column)
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
    stated = [name for name in names if name in PROMPT_FIELDS]
    if prompt_column is not None and prompt_column not in stated:
        return _with_prompt(table, source.name, prompt_column, stated)
    if not stated:
        close = [column for name in names for column in near(name, PROMPT_FIELDS, 1)]
        hint = f'; is "{close[0]}" meant?' if close else ""
        raise BlendplanError(
            f'{source.name} has no column "prompt_token_ids", "prompt" or "messages", only '
            f"{_listed(names)}{hint or '; --prompt-column NAME says which holds the prompts'}"
        )
    return table


def _with_prompt(table: OpenTable, name: str, column: str, stated: list[str]) -> OpenTable:
    """The table with a column under the name that its type calls for."""
    names = table.schema.names
    if column not in names:
        raise BlendplanError(
            f"{name} has no column {show(column)}, only {_listed(names)}; give one of these"
        )
    if stated:
        raise BlendplanError(
            f"{name} has the columns {show(column)} and {show(stated[0])}; rename or remove one"
        )
    kind = table.schema.field(column).type
    new = "prompt"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        new = "prompt_token_ids" if pa.types.is_integer(kind.value_type) else "messages"
    renamed = [new if own == column else own for own in names]
    schema = pa.schema(
        [field.with_name(own) for field, own in zip(table.schema, renamed, strict=True)]
    )
    batches = (batch.rename_columns(renamed) for batch in table.batches)
    return replace(table, schema=schema, batches=batches)


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


# Columns of CSV files that are texts even where all of their cells look like numbers.
_CSV_TEXTS = ("custom_id", "id", "method", "url", "body", "prompt", "messages", "input")


def _open_csv(source: Source, prompt_column: str | None) -> OpenTable:
    delimiter = "\t" if ".tsv" in source.path.suffixes else ","
    texts = {name: pa.large_string() for name in (*_CSV_TEXTS, prompt_column) if name}
    table = pc.read_csv(
        source.path,
        parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pc.ConvertOptions(column_types=texts),
    )
    batches = table.to_batches(max_chunksize=1 << 14)
    return OpenTable(table.schema, table.num_rows, 0, _checked(source.name, batches))
