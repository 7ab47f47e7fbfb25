"""Blocks of JSON lines to blocks of columns: fast where that is safe, else line by line."""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.requests.collect import Block
from blendplan.requests.columns import several
from blendplan.requests.json_blocks import read_block
from blendplan.requests.record import BadRecordError, Record, parse_line, read_record
from blendplan.requests.tokens import Estimate, PreparedText, Tokens

_BLANK_BYTES = b" \t\r\n"
_LEAST_LINE_BYTES = 4
_FILLED = re.compile(rb"[^ \t\r\n][^\n]*")

Reject = Callable[[int, str, bytes], None]
"""Takes a line number from 0, what is wrong with it, and the line; may raise."""


def read_lines(text: bytes, first_row: int, tokens: Tokens, reject: Reject) -> Block | None:
    """Read a block of whole lines; None when no line is good.

    Args:
        text: UTF-8 JSON lines; blank lines are passed over.
        first_row: number of the first line in the file, from 0.
        tokens: what turns text into token ids.
        reject: called for every bad line.
    """
    if _is_blank(text):
        return None
    # The fast way takes an offset for every line, and so much memory where most are blank.
    dense = count_lines(text) * _LEAST_LINE_BYTES > len(text) + _LEAST_LINE_BYTES
    fast = isinstance(tokens, Estimate) and not dense
    block = read_block(text, first_row) if fast else None
    return block or read_exactly(text, first_row, tokens, reject)


def count_lines(text: bytes) -> int:
    """Line ends in a text; `bytes.count` takes many times as long where they are dense."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def _is_blank(text: bytes) -> bool:
    """Whether a text is all white space; one that begins otherwise is not looked through."""
    return not text[:256].strip(_BLANK_BYTES) and not text.translate(None, _BLANK_BYTES)


def filled_lines(text: bytes, first_row: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, without the white space around them, and their numbers.

    Blank lines are passed over by the million: a file of nothing else must not stop anybody.
    """
    if _is_blank(text):
        return
    row, counted = first_row, 0
    for found in _FILLED.finditer(text):
        row += text.count(b"\n", counted, found.start())
        counted = found.start()
        yield row, found[0].rstrip(_BLANK_BYTES)


def read_exactly(text: bytes, first_row: int, tokens: Tokens, reject: Reject) -> Block | None:
    """As `read_lines`, one line at a time."""
    rows: list[int] = []
    lines: list[bytes] = []
    records: list[Record] = []
    prompts: list[PreparedText | None] = []
    for row, line in filled_lines(text, first_row):
        try:
            record = read_record(parse_line(line))
            prompt = None if record.token_ids is not None else tokens.prepare(record)
        except BadRecordError as error:
            reject(row, str(error), line)
            continue
        rows.append(row)
        lines.append(line)
        records.append(record)
        prompts.append(prompt)
    if not rows:
        return None
    token_ids, lengths = _token_ids(records, prompts, tokens)
    empty = np.flatnonzero(lengths == 0)
    for index in empty:
        reject(
            rows[index], "the tokenizer makes no token of the prompt; give more text", lines[index]
        )
    kept = np.flatnonzero(lengths)
    if not len(kept):
        return None
    return Block(
        ids=pa.array([records[i].id for i in kept], pa.large_string()),
        source_row=np.array(rows, np.int64)[kept],
        token_ids=token_ids,
        lengths=lengths[kept],
        output_tokens=np.array([records[i].output_tokens for i in kept], np.int32),
        max_tokens=np.array([records[i].max_tokens for i in kept], np.int32),
        bodies=pa.array([lines[i] for i in kept], pa.large_binary()),
        estimated=any(prompt is not None and not prompt.exact for prompt in prompts),
        answers=several(np.array([records[i].answers for i in kept], np.int32)),
    )


def _token_ids(
    records: Sequence[Record], prompts: Sequence[PreparedText | None], tokens: Tokens
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Token ids of all records, int32 [total], and the length of each, int64 [n]."""
    texts = [prompt for prompt in prompts if prompt is not None]
    if len(texts) == len(prompts):
        return tokens.encode(texts)
    encoded, text_lengths = tokens.encode(texts) if texts else (np.empty(0, np.int32), np.empty(0))
    ends = iter(np.cumsum(text_lengths, dtype=np.int64).tolist())
    pieces = []
    start = 0
    for record in records:
        if record.token_ids is not None:
            pieces.append(np.array(record.token_ids, np.int32))
        else:
            end = next(ends)
            pieces.append(encoded[start:end])
            start = end
    return np.concatenate(pieces), np.array([len(piece) for piece in pieces], np.int64)
