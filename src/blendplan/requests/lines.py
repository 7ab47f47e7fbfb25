"""Blocks of JSON lines to blocks of columns: fast where that is safe, else line by line."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.requests import remarks
from blendplan.requests.bad import BadRecordError
from blendplan.requests.collect import Block
from blendplan.requests.columns import several
from blendplan.requests.endpoints import WITHOUT_OUTPUT
from blendplan.requests.json_blocks import read_block
from blendplan.requests.record import Record, json_line, parse_line, read_record
from blendplan.requests.remarks import Remarks
from blendplan.requests.shape import AS_IT_IS, Shape
from blendplan.requests.tokens import Estimate, Prepared, TokenIds, Tokens

_BLANK_BYTES = b" \t\r\n"
_LEAST_LINE_BYTES = 4
_FILLED = re.compile(rb"[^ \t\r\n][^\n]*")

Reject = Callable[[int, str, bytes], None]
"""Takes a line number from 0, what is wrong with it, and the line; may raise."""

# Of a block that is read the fast way, so many lines are looked at for unknown fields.
_LINES_LOOKED_AT = 64


@dataclass(frozen=True)
class Reading:
    """How the lines of a file are read.

    Attributes:
        tokens: what turns text into token ids.
        reject: called for every bad line.
        seen: told what a reader should know of the file.
        shape: what each line becomes before it is read.
    """

    tokens: Tokens
    reject: Reject
    seen: Remarks = field(default_factory=Remarks)
    shape: Shape = AS_IT_IS


def read_lines(text: bytes, first_row: int, reading: Reading) -> Block | None:
    """Read a block of whole lines; None when no line is good.

    Args:
        text: UTF-8 JSON lines; blank lines are passed over.
        first_row: number of the first line in the file, from 0.
        reading: how.
    """
    if _is_blank(text):
        return None
    # The fast way takes an offset for every line, and so much memory where most are blank.
    dense = count_lines(text) * _LEAST_LINE_BYTES > len(text) + _LEAST_LINE_BYTES
    plain = isinstance(reading.tokens, Estimate) and not reading.shape
    block = read_block(text, first_row) if plain and not dense else None
    if block is None:
        block = read_exactly(text, first_row, reading)
    else:
        assert block.bodies is not None
        for index in np.unique(np.linspace(0, len(block.bodies) - 1, _LINES_LOOKED_AT).astype(int)):
            reading.seen.line(parse_line(block.bodies[int(index)].as_py()))
    if block is not None:
        say_over_cap(block, reading.seen)
    return block


def say_over_cap(block: Block, seen: Remarks) -> None:
    """Remark on requests whose known length is above their own cap."""
    over = (block.max_tokens >= 0) & (block.output_tokens > block.max_tokens)
    if over.any():
        seen.count(remarks.OVER_CAP, int(over.sum()))


def count_lines(text: bytes) -> int:
    """Line ends in a text; `bytes.count` takes many times as long where they are dense."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def first_lines(text: bytes, count: int) -> bytes:
    """The first lines of a text, all of it where it has no more."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    if count <= 0:
        return b""
    return text[: int(ends[count - 1]) + 1] if count <= len(ends) else text


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


def read_exactly(text: bytes, first_row: int, reading: Reading) -> Block | None:
    """As `read_lines`, one line at a time."""
    rows: list[int] = []
    lines: list[bytes] = []
    records: list[Record] = []
    prompts: list[Prepared | None] = []
    reject = reading.reject
    for row, line in filled_lines(text, first_row):
        try:
            fields = parse_line(line)
            if reading.shape:
                reading.seen.saying(reading.shape.said_by(fields))
                line = json_line(reading.shape.named(fields))
                fields = reading.shape.shaped(fields)
                line = json_line(fields)
            record = read_record(fields)
            prompt = None if record.token_ids is not None else reading.tokens.prepare(record)
        except BadRecordError as error:
            reject(row, str(error), line)
            continue
        _remark(reading.seen, fields, record)
        rows.append(row)
        lines.append(line)
        records.append(record)
        prompts.append(prompt)
    if not rows:
        return None
    token_ids, lengths = _token_ids(records, prompts, reading.tokens)
    for index in np.flatnonzero(lengths == 0):
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


def _remark(seen: Remarks, fields: Mapping[str, Any], record: Record) -> None:
    """Say what a reader should know of a request."""
    seen.line(fields)
    if record.endpoint in WITHOUT_OUTPUT:
        seen.count(remarks.WITHOUT_OUTPUT)
    elif record.max_tokens == 1 and _states_no_tokens(record.body):
        seen.count(remarks.PREFILL_ONLY)
    if len(record.texts) > 1:
        seen.count(remarks.SEVERAL_TEXTS)


def _states_no_tokens(body: Mapping[str, Any]) -> bool:
    caps = (body.get(key) for key in ("max_completion_tokens", "max_tokens", "max_output_tokens"))
    return any(cap is not None and not isinstance(cap, bool) and cap in (0, "0") for cap in caps)


def _token_ids(
    records: Sequence[Record], prompts: Sequence[Prepared | None], tokens: Tokens
) -> tuple[TokenIds, NDArray[np.int64]]:
    """Token ids of all records, int32 [total], and the length of each, int64 [n]."""
    texts = [text for prompt in prompts if prompt is not None for text in prompt.texts]
    if len(texts) == len(prompts) and all(prompt and prompt.join is None for prompt in prompts):
        return tokens.encode(texts)
    encoded, text_lengths = tokens.encode(texts) if texts else (np.empty(0, np.int32), np.empty(0))
    ends = np.cumsum(text_lengths, dtype=np.int64)
    parts = iter(np.split(encoded, ends[:-1]))
    pieces: list[TokenIds] = []
    for record, prompt in zip(records, prompts, strict=True):
        if prompt is None:
            pieces.append(np.array(record.token_ids, np.int32))
            continue
        own = [next(parts) for _ in prompt.texts]
        pieces.append(own[0] if prompt.join is None else prompt.join(own))
    return np.concatenate(pieces), np.array([len(piece) for piece in pieces], np.int64)
