"""CSV files as batches of rows, in bounded memory; the types of columns are seen in all rows.

A column is of whole numbers, of numbers or of truth values only where every cell is written as
those are, so that "007" and "1.10" stay what they are; parameters of requests are read as numbers
however they are written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from blendplan.errors import BlendplanError
from blendplan.requests.source import Source

_BLOCK_BYTES = 16 << 20  # the longest row, too
# Texts even where all of their cells look like numbers.
_TEXTS = frozenset(["custom_id", "id", "method", "url", "body", "prompt", "messages", "input"])
# Read as numbers however they are written.
_NUMBER_NAMES = """
max_tokens max_completion_tokens min_tokens output_tokens prompt_tokens temperature top_p top_k
min_p n seed presence_penalty frequency_penalty repetition_penalty logprobs top_logprobs
"""
_NUMBERS = frozenset(_NUMBER_NAMES.split())
_KINDS = (pa.int64(), pa.float64(), pa.bool_())


def open_csv(source: Source, texts: tuple[str, ...]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of a CSV file and its rows.

    Args:
        source: the file; names that end in ``.tsv`` have tabs.
        texts: columns that are texts, whatever is in them.
    """
    with _naming_encoding(source), _reading(source, {}) as reader:
        names = reader.schema.names
    columns = dict.fromkeys(names, pa.large_string())
    if len(columns) < len(names):
        return reader.schema, iter(())  # which nobody reads: two columns have one name
    possible: dict[str, tuple[pa.DataType, ...]] = {
        name: () if name in _TEXTS or name in texts else _KINDS for name in names
    }
    filled: set[str] = set()
    with _naming_encoding(source), _reading(source, columns) as reader:
        for batch in reader:
            for name, kinds in possible.items():
                if kinds:
                    cells = batch.column(name)
                    cells = cells.filter(pc.greater(pc.binary_length(cells), 0))
                    if len(cells):
                        filled.add(name)
                        possible[name] = tuple(kind for kind in kinds if _fits(cells, kind, name))
    for name, kinds in possible.items():
        if kinds and name in filled:
            columns[name] = kinds[0]
    return pa.schema(columns), _batches(source, columns)


@contextmanager
def _naming_encoding(source: Source) -> Iterator[None]:
    """Say of a file in another encoding what it is, rather than that it is damaged."""
    try:
        yield
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in str(error):
            raise BlendplanError(f"{source.name} is not UTF-8; save the file as UTF-8") from None
        raise


def _batches(source: Source, columns: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    with _reading(source, columns) as reader:
        yield from reader


def _reading(source: Source, columns: dict[str, Any]) -> Any:
    delimiter = "\t" if ".tsv" in source.path.suffixes else ","
    return csv.open_csv(
        source.path,
        csv.ReadOptions(block_size=_BLOCK_BYTES),
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        csv.ConvertOptions(column_types=columns),
    )


def _fits(cells: pa.Array, kind: pa.DataType, name: str) -> bool:
    """Whether all cells are values of a type, and for data, written as the type is."""
    try:
        values = cells.cast(kind)
    except pa.ArrowInvalid:
        return False
    if name in _NUMBERS:
        return not pa.types.is_boolean(kind)
    return bool(pc.all(pc.equal(values.cast(pa.large_string()), cells)).as_py())
