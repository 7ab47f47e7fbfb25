"""The fast way through a block of JSON lines: Arrow's JSON reader with a fixed schema.

Takes a block only when every line is good and plain. Anything else (a bad line, numbers written as
1.0, content parts, tool calls, integer ids) makes it hand back None, and the block is read line by
line. What it takes it reads as the exact way does.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.offsets import offsets_of
from blendplan.requests.collect import Block
from blendplan.requests.json_columns import LINE_SCHEMA, block_of_columns

_PARSED_AT_ONCE = 1 << 20  # pieces of a block are parsed on several cores
_NUMBER_WORDS = re.compile(rb"NaN|Inf(?:inity)?[\s,}\]]")
_LINE_END, _OPEN, _CLOSE = b"\n{}"


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
            pj.ParseOptions(explicit_schema=LINE_SCHEMA, unexpected_field_behavior="ignore"),
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
    line = {name: _whole_column(table.column(name)) for name in LINE_SCHEMA.names}
    return block_of_columns(line, rows + first_row, _bodies(text, ends - starts))


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
    offsets = offsets_of(lengths)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text.replace(b"\n", b""))]
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)


def _whole_column(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
