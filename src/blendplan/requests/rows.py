"""Batches of table rows to blocks of columns.

Rows with token ids stay columns. Rows with text or with a whole batch line become JSON lines and
go the way of those.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.printable import show
from blendplan.requests import remarks
from blendplan.requests.bad import BadRecordError
from blendplan.requests.collect import Block
from blendplan.requests.columns import several
from blendplan.requests.lines import Reading, read_lines, say_over_cap
from blendplan.requests.prompts import LARGEST_TOKEN_ID
from blendplan.requests.record import MOST_ANSWERS, MOST_TOKENS, parse_line, read_record
from blendplan.requests.shape import AS_IT_IS
from blendplan.requests.source_columns import carried_values, plain_values
from blendplan.requests.tables import OpenTable, reading

_ID_COLUMNS = ("custom_id", "id")
_CAP_COLUMNS = ("max_completion_tokens", "max_tokens")
_COUNT_COLUMNS = (*_CAP_COLUMNS, "output_tokens")
_ANSWER_COLUMNS = ("n",)
_NOT_SAMPLING = ("prompt_token_ids", "output_tokens", *_ID_COLUMNS)
# Columns that hold JSON; many tables have it as text.
_JSON_COLUMNS = frozenset(
    [
        "body",
        "messages",
        "tools",
        "tool_choice",
        "response_format",
        "structured_outputs",
        "chat_template_kwargs",
        "documents",
        "logit_bias",
        "stop",
        "metadata",
        "extra_body",
        "input",
    ]
)


def read_rows(table: OpenTable, name: str, how: Reading) -> Iterator[Block]:
    """Read all rows of a table; a batch without any good row gives nothing.

    Args:
        table: an open table.
        name: the file as it may stand in a message.
        how: as lines are read.
    """
    as_columns = not how.shape and _has_plain_columns(table.schema)
    how.seen.saying(how.shape.said_by(table.schema.names))
    if as_columns:
        how.seen.names(table.schema.names)
    first_row = 0
    for batch in table.batches:
        if as_columns:
            block = _read_columns(batch, first_row, name, how)
            if block is not None:
                say_over_cap(block, how.seen)
        else:
            with reading(name):
                lines = b"\n".join(_lines(batch, first_row, how))
            block = read_lines(lines, first_row, replace(how, shape=AS_IT_IS))
        first_row += batch.num_rows
        if block is not None:
            yield block


def _lines(batch: pa.RecordBatch, first_row: int, how: Reading) -> Iterator[bytes]:
    """Rows as JSON lines; an empty one for a row that cannot be shaped, which is rejected."""
    rows = [_parsed(row) for row in plain_rows(batch)]
    names = batch.schema.names if how.shape.makes_prompt else []
    columns = [carried_values(batch.column(name)) for name in names]
    for index, row in enumerate(rows):
        carried = {name: column[index] for name, column in zip(names, columns, strict=True)}
        try:
            line = _json_line(how.shape.shaped(row, carried) if how.shape else row)
            _check_text(line, row)
            yield line
        except BadRecordError as error:
            how.reject(first_row + index, str(error), _json_line(how.shape.named(row)))
            yield b""


def _has_plain_columns(schema: pa.Schema) -> bool:
    """Whether prompts are lists of integers and ids and limits are of simple types."""
    names = schema.names
    if len(set(names)) < len(names) or {"prompt", "messages", "body"} & set(names):
        return False
    prompts = schema.field("prompt_token_ids").type
    types = pa.types
    return (
        (types.is_list(prompts) or types.is_large_list(prompts))
        and types.is_integer(prompts.value_type)
        and all(
            types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)
            for kind in (schema.field(name).type for name in _ID_COLUMNS if name in names)
        )
        and all(
            types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
            for kind in (
                schema.field(name).type
                for name in (*_COUNT_COLUMNS, *_ANSWER_COLUMNS)
                if name in names
            )
        )
    )


def _read_columns(batch: pa.RecordBatch, first_row: int, name: str, how: Reading) -> Block | None:
    """Token ids, ids and limits column by column."""
    with reading(name):
        lists = batch.column("prompt_token_ids")
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = lists.flatten()
        good = (lengths > 0) & ~_rows_with_bad_token_ids(values, lengths)
        ids = _id_column(batch)
        good &= ~_column(pc.equal(pc.binary_length(ids), 0), False)
        counts = {}
        for column in _COUNT_COLUMNS:
            least = 0 if column in _CAP_COLUMNS else 1
            counts[column], is_good = _count_column(batch, column, least=least)
            good &= is_good
        answers = np.ones(batch.num_rows, np.int32)
        for column in _ANSWER_COLUMNS:
            asked, is_good = _count_column(batch, column, MOST_ANSWERS)
            answers = np.maximum(answers, asked)
            good &= is_good
        bodies, is_good = _sampling_bodies(batch)
        good &= is_good
    for index in np.flatnonzero(~good).tolist():
        row = plain_rows(batch.slice(index, 1))[0]
        line = _json_line(row)
        how.reject(first_row + index, _row_reason(line, row) or "not a good request", line)
    if not good.any():
        return None
    token_ids = (
        values.to_numpy(zero_copy_only=False)
        if values.null_count == 0
        else (values.fill_null(0).to_numpy(zero_copy_only=False))
    )
    rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
    if not good.all():
        token_ids = token_ids[np.repeat(good, lengths)]
        mask = pa.array(good)
        ids = ids.filter(mask)
        bodies = None if bodies is None else bodies.filter(mask)
    newer = counts["max_completion_tokens"]
    caps = np.where(newer < 0, counts["max_tokens"], newer)
    if (without := good & (caps == 0)).any():  # prefill only, which ends with one token
        how.seen.count(remarks.PREFILL_ONLY, int(without.sum()))
        caps = np.where(without, 1, caps)
    return Block(
        ids=ids,
        source_row=rows[good],
        token_ids=token_ids,
        lengths=lengths[good],
        output_tokens=counts["output_tokens"][good],
        max_tokens=caps[good],
        bodies=bodies,
        estimated=False,
        answers=several(answers[good]),
    )


def _rows_with_bad_token_ids(values: pa.Array, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    bad_rows = np.zeros(len(lengths), bool)
    if not len(values):
        return bad_rows
    if values.null_count == 0:
        numbers = values.to_numpy()
        if numbers.min() >= 0 and numbers.max() <= LARGEST_TOKEN_ID:
            return bad_rows
    in_range = pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, LARGEST_TOKEN_ID))
    bad_values = ~_column(in_range, False)
    bad_rows[np.repeat(np.arange(len(lengths)), lengths)[bad_values]] = True
    return bad_rows


def _column(values: pa.Array, missing: Any) -> NDArray[Any]:
    filled: NDArray[Any] = values.fill_null(missing).to_numpy(zero_copy_only=False)
    return filled


def _id_column(batch: pa.RecordBatch) -> pa.Array:
    columns = [
        batch.column(name).cast(pa.large_string())
        for name in _ID_COLUMNS
        if name in batch.schema.names
    ]
    if not columns:
        return pa.nulls(batch.num_rows, pa.large_string())
    return pc.coalesce(*columns)


def _count_column(
    batch: pa.RecordBatch, name: str, most: int = MOST_TOKENS, *, least: int = 1
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Counts, -1 where not stated, int32 [k]; and whether each is good or not stated, bool [k]."""
    if name not in batch.schema.names:
        return np.full(batch.num_rows, -1, np.int32), np.ones(batch.num_rows, bool)
    column = batch.column(name)
    values = _column(column, 0)
    # Data frames write a column of integers with gaps as floats with NaN.
    stated = _column(column.is_valid(), False) & (values == values)
    in_range = stated & (values >= least) & (values <= most)
    in_range[in_range] = values[in_range] % 1 == 0
    counts = np.where(in_range, values, -1).astype(np.int32)
    return counts, in_range | ~stated


def _sampling_bodies(batch: pa.RecordBatch) -> tuple[pa.Array | None, NDArray[np.bool_]]:
    """The columns that are neither prompt nor id nor known length, as one JSON object per row.

    Returns:
        the objects, large_binary [k], None when there are no such columns; and whether each is
        good, bool [k].
    """
    good = np.ones(batch.num_rows, bool)
    names = [name for name in batch.schema.names if name not in _NOT_SAMPLING]
    if not names:
        return None, good
    bodies: list[bytes | None] = []
    for index, row in enumerate(plain_rows(batch.select(names))):
        body = _json_line(row)
        bodies.append(None if body == b"{}" else body)
        # What a column can hold and JSON cannot.
        if b"Infinity" in body or not _is_text(body):
            good[index] = _reason(body, parse_line) is None
    return pa.array(bodies, pa.large_binary()), good


def _check_text(line: bytes, row: Mapping[str, Any]) -> None:
    """Raise a `BadRecordError` that names the column whose bytes make a row's line no text."""
    if _is_text(line):
        return
    for name, value in row.items():
        if not _is_text(_bytes_in(value)):
            raise BadRecordError(
                f"column {show(name)} holds bytes that are not UTF-8, which no request can have; "
                "decode it to text, or leave the column out"
            )


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_in(value: Any) -> bytes:
    """What of a value is bytes, however deep."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return b"".join(map(_bytes_in, value))
    return value if isinstance(value, bytes) else b""


def _row_reason(line: bytes, row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row, None when nothing is found."""
    return _reason(line, lambda line: _check_text(line, row)) or _reason(
        line, lambda line: read_record(parse_line(line))
    )


def _reason(line: bytes, read: Callable[[bytes], object]) -> str | None:
    """What the exact reader says about a row, None when it finds nothing wrong."""
    try:
        read(line)
    except BadRecordError as error:
        return str(error)
    return None


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as dictionaries of plain Python values."""
    columns = [plain_values(column) for column in batch.columns]
    return [
        dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)
    ]


def _json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON without its nulls."""
    kept = _without_nulls(row)
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=_plain)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can express
        return json.dumps(kept, separators=(",", ":"), default=_plain).encode()


def _parsed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with the JSON that its cells hold as text read; what is none stays a text.

    Bytes that are a text are one: some writers do not say so.
    """
    return {name: _json_cell(name, value) for name, value in row.items()}


def _json_cell(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return value
    if name not in _JSON_COLUMNS or not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _without_nulls(value: Any) -> Any:
    """Drop what is null or NaN in objects, since a column has a value for every row."""
    if isinstance(value, Mapping):
        return {
            key: _without_nulls(item)
            for key, item in value.items()
            if item is not None and item == item
        }
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return [_without_nulls(item) for item in value]
    return value


def _plain(value: object) -> object:
    """What JSON has no type for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)
