"""The fast way through a block of JSON lines: Arrow's JSON reader with a fixed schema.

Takes a block only when every line is good and plain, and all lines have one form: all batch lines
or none, and one kind of prompt. Anything else (a bad line, numbers written as 1.0, content parts,
tool calls, integer ids) makes it hand back None, and the block is read line by line. What it takes
it reads as the exact way does.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.requests.collect import Block
from blendplan.requests.estimate import estimate_tokens
from blendplan.requests.record import (
    LARGEST_TOKEN_ID,
    MOST_TOKENS,
    BadRecordError,
    kind_asked_by_url,
)
from blendplan.requests.rendering import estimate_messages

_PARSED_AT_ONCE = 1 << 20  # pieces of a block are parsed on several cores
_NUMBER_WORDS = re.compile(rb"NaN|Inf(?:inity)?[\s,}\]]")
_LINE_END, _OPEN, _CLOSE = b"\n{}"

# A null type refuses any value: where one of these stands, the line is for the exact reader.
_NOTHING = pa.null()
_MESSAGE = pa.struct(
    {
        "role": pa.string(),
        "content": pa.string(),
        "name": _NOTHING,
        "tool_calls": _NOTHING,
        "tool_call_id": _NOTHING,
    }
)
_BODY = {
    "prompt": pa.string(),
    "prompt_token_ids": pa.list_(pa.int64()),
    "messages": pa.list_(_MESSAGE),
    "max_tokens": pa.int64(),
    "max_completion_tokens": pa.int64(),
    "output_tokens": pa.int64(),
    "tools": _NOTHING,
}
_LINE = pa.schema(
    {"custom_id": pa.string(), "id": pa.string(), "url": pa.string(), "body": pa.struct(_BODY)}
    | _BODY
)


def read_block(text: bytes, first_row: int) -> Block | None:
    """Read a block of whole lines with the built-in token estimate, or None when unsure.

    Args:
        text: JSON lines, blank ones allowed.
        first_row: number of the first line in the file, from 0.
    """
    if b"\r\n" in text:
        text = text.replace(b"\r\n", b"\n")
    starts, ends = _lines(text)
    rows = np.flatnonzero(starts < ends)
    starts, ends = starts[rows], ends[rows]
    if not len(rows) or not _could_be_objects(text, starts, ends):
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(text),
            pj.ReadOptions(block_size=max(_PARSED_AT_ONCE, 2 * int((ends - starts).max()))),
            pj.ParseOptions(explicit_schema=_LINE, unexpected_field_behavior="ignore"),
        )
        # The reader does not look at the text of fields that it passes over.
        whole = pa.array([0, len(text)], pa.int64()).buffers()[1]
        pa.Array.from_buffers(pa.large_string(), 1, [None, whole, pa.py_buffer(text)]).validate(
            full=True
        )
    except (pa.ArrowException, ValueError):
        return None
    if table.num_rows != len(rows):
        return None
    line = {name: _whole_column(table.column(name)) for name in _LINE.names}
    return _block(line, rows + first_row, _bodies(text, ends - starts))


def _lines(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of each line in `text`, the line end left out."""
    line_ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _LINE_END)
    starts = np.concatenate([[0], line_ends + 1])
    return starts, np.concatenate([line_ends, [len(text)]])


def _could_be_objects(text: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> bool:
    """Whether parsing the block as a whole cannot differ from parsing each line.

    The parser takes line ends for white space. But a "}" at a line's end and a "{" at the next
    one's start can only meet between whole values, so each line holds one object or more, and it
    is one when there are as many objects as lines.
    """
    data = np.frombuffer(text, np.uint8)
    return bool(
        (data[starts] == _OPEN).all()
        and (data[ends - 1] == _CLOSE).all()
        and b"\0" not in text
        and not (_may_have_number_words(data) and _NUMBER_WORDS.search(text))
        and not _is_extreme(data, starts, ends)
    )


@kernel
def _may_have_number_words(text: NDArray[np.uint8]) -> bool:
    """Whether "NaN" or what may be an infinity, which Arrow takes for numbers, is in the text."""
    found = False
    for i in range(len(text) - 3):
        a, b, c, d = text[i], text[i + 1], text[i + 2], text[i + 3]
        found |= (a == 78) & (b == 97) & (c == 78)
        found |= (
            (a == 73)
            & (b == 110)
            & (c == 102)
            & ((d <= 32) | (d == 44) | (d == 93) | (d == 125) | (d == 105))
        )
    return bool(found)


@kernel
def _is_extreme(
    text: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> bool:
    """Whether a line may be nested as deeply, or a number be as long, as Python refuses to read.

    Python's limits are about 1,000 levels and 4,300 digits.
    """
    for line in range(len(starts)):
        data = text[starts[line] : ends[line]]
        opened = 0
        for i in range(len(data)):
            opened += int((data[i] == 91) | (data[i] == 123))
        if opened > 500:
            return True
        digits = 0  # in a row, looked at every 32 bytes
        for i in range(0, len(data), 32):
            digits = digits + 1 if 48 <= data[i] <= 57 else 0
            if digits > 128:
                return True
    return False


def _bodies(text: bytes, lengths: NDArray[np.int64]) -> pa.Array:
    """The lines as they are, large_binary [k]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text.replace(b"\n", b""))]
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)


def _block(line: dict[str, pa.Array], rows: NDArray[np.int64], bodies: pa.Array) -> Block | None:
    """Check the columns and put them together; None when any value needs the exact reader."""
    body = line["body"]
    url = line["url"]
    if body.null_count == 0:
        fields = {name: pc.struct_field(body, name) for name in _BODY}
    elif body.null_count == len(rows) and url.null_count == len(rows):
        fields = {name: line[name] for name in _BODY}
    else:
        return None
    kinds = [name for name in ("prompt", "prompt_token_ids", "messages") if _any(fields[name])]
    if len(kinds) != 1 or fields[kinds[0]].null_count or not _urls_ask_for(kinds[0], url):
        return None
    ids = pc.coalesce(line["custom_id"], line["id"])
    output_tokens = pc.coalesce(line["output_tokens"], fields["output_tokens"])
    max_tokens = pc.coalesce(fields["max_completion_tokens"], fields["max_tokens"])
    counts = (fields["max_tokens"], max_tokens, line["output_tokens"], output_tokens)
    if not _all_within(pc.binary_length(ids), 1) or not all(
        _all_within(column, 1, MOST_TOKENS) for column in counts
    ):
        return None
    kind = kinds[0]
    prompts = _token_ids(fields[kind]) if kind == "prompt_token_ids" else _text(fields[kind])
    if prompts is None:
        return None
    return Block(
        ids=ids.cast(pa.large_string()),
        source_row=rows,
        token_ids=prompts[0],
        lengths=prompts[1],
        output_tokens=output_tokens.fill_null(-1).to_numpy().astype(np.int32),
        max_tokens=max_tokens.fill_null(-1).to_numpy().astype(np.int32),
        bodies=bodies,
        estimated=kind != "prompt_token_ids",
    )


def _text(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Estimated token ids of prompts or messages."""
    if pa.types.is_list(column.type):
        turns = column.flatten()
        roles, contents = pc.struct_field(turns, "role"), pc.struct_field(turns, "content")
        if (
            roles.null_count
            or contents.null_count
            or not _all_within(column.value_lengths(), 1)
            or not _all_within(pc.binary_length(roles), 1)
        ):
            return None
        return estimate_messages(column)
    if not _all_within(pc.binary_length(column), 1):
        return None
    return estimate_tokens(column.cast(pa.large_string()))


def _token_ids(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    values = column.flatten()
    if (
        values.null_count
        or not _all_within(column.value_lengths(), 1)
        or not _all_within(values, 0, LARGEST_TOKEN_ID)
    ):
        return None
    return values.to_numpy().astype(np.int32), column.value_lengths().to_numpy().astype(np.int64)


def _urls_ask_for(kind: str, urls: pa.Array) -> bool:
    """Whether every endpoint that is named takes this kind of prompt."""
    try:
        asked = {kind_asked_by_url(url) for url in pc.unique(urls).to_pylist()}
    except BadRecordError:
        return False
    return asked <= {None, "messages" if kind == "messages" else "prompt"}


def _all_within(column: pa.Array, low: int, high: int | None = None) -> bool:
    """Whether all values that are there are within the bounds."""
    bounds = pc.min_max(column).as_py()
    if bounds["min"] is None:
        return True
    return bool(bounds["min"] >= low and (high is None or bounds["max"] <= high))


def _any(column: pa.Array) -> bool:
    return bool(column.null_count < len(column))


def _whole_column(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
