"""Gathering blocks of requests into one `Requests`, without holding any column twice."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests
from blendplan.requests.tokens import binary_parts


@dataclass(frozen=True)
class Block:
    """Some consecutive good requests of a file, as columns; k requests.

    Attributes:
        ids: large_string [k], null where the request states no id.
        source_row: line or row in the file, from 0; int64 [k].
        token_ids: int32 [total].
        lengths: tokens of each prompt; int64 [k].
        output_tokens, max_tokens: -1 where not stated; int32 [k].
        bodies: large_binary [k], None when no request has one.
        estimated: whether any prompt went through the built-in estimate.
        answers: answers that each request asks for; int32 [k], None where all ask for one.
    """

    ids: pa.Array
    source_row: NDArray[np.int64]
    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    output_tokens: NDArray[np.int32]
    max_tokens: NDArray[np.int32]
    bodies: pa.Array | None
    estimated: bool
    answers: NDArray[np.int32] | None = None


def with_ids(block: Block, prefix: str) -> Block:
    """A block whose missing ids are the numbers of their lines or rows, after a prefix."""
    if not block.ids.null_count:
        return block
    numbers = pa.array(block.source_row + 1).cast(pa.large_string())
    before, nothing = (pa.scalar(text, numbers.type) for text in (prefix, ""))
    named = pc.binary_join_element_wise(before, numbers, nothing)
    return replace(block, ids=pc.coalesce(block.ids, named))


class GrowingArray:
    """An array that is filled from the front and given away once.

    `expected` is only a hint of the final length. Memory beyond what was filled is not touched
    when the hint is too high, and is grown in place where the allocator can when it is too low.
    """

    def __init__(self, dtype: type[np.generic], expected: int = 0) -> None:
        try:
            self._array = np.empty(max(expected, 1024), dtype)
        except (MemoryError, ValueError):  # a hint taken from a damaged file
            self._array = np.empty(1024, dtype)
        self._filled = 0

    @property
    def bytes(self) -> int:
        """Size of what was filled."""
        return self._filled * self._array.itemsize

    def append(self, values: NDArray[Any]) -> None:
        """Add `values` at the end."""
        end = self._filled + len(values)
        if end > len(self._array):
            self._array.resize(max(end, len(self._array) * 5 // 4), refcheck=False)
        self._array[self._filled : end] = values
        self._filled = end

    def take(self) -> NDArray[Any]:
        """The array, cut to what was filled; this object is of no use afterwards."""
        self._array.resize(self._filled, refcheck=False)
        return self._array


class Collector:
    """Blocks go in one by one, `Requests` comes out."""

    def __init__(self, expected_tokens: int = 0, expected_body_bytes: int = 0) -> None:
        self._tokens = GrowingArray(np.int32, expected_tokens)
        self._lengths = GrowingArray(np.int64)
        self._rows = GrowingArray(np.int64)
        self._output = GrowingArray(np.int32)
        self._cap = GrowingArray(np.int32)
        self._body_bytes = GrowingArray(np.uint8, expected_body_bytes)
        self._body_lengths = GrowingArray(np.int64)
        self._ids: list[pa.Array] = []
        self._answers: list[NDArray[np.int32] | int] = []  # a number stands for as many ones
        self._any_body = False
        self._estimated = False

    def add(self, block: Block | None) -> None:
        """Append the requests of `block`; None is a block without any."""
        if block is None:
            return
        self._tokens.append(block.token_ids)
        self._lengths.append(block.lengths)
        self._rows.append(block.source_row)
        self._output.append(block.output_tokens)
        self._cap.append(block.max_tokens)
        self._answers.append(len(block.lengths) if block.answers is None else block.answers)
        self._ids.append(block.ids)
        self._estimated |= block.estimated
        if block.bodies is None:
            # An empty body cannot occur, so zero bytes mark a missing one.
            self._body_lengths.append(np.zeros(len(block.lengths), np.int64))
            return
        self._any_body = True
        offsets, data = binary_parts(block.bodies)  # a null has no bytes
        self._body_lengths.append(np.diff(offsets))
        self._body_bytes.append(data[offsets[0] : offsets[-1]])

    @property
    def bytes(self) -> int:
        """Size of the prompts and bodies added so far."""
        return self._tokens.bytes + self._body_bytes.bytes

    def finish(self, source: Path | str | None, sha256: str) -> Requests:
        """All requests added so far, which have ids; see `with_ids`."""
        rows = self._rows.take()
        bodies = self._bodies()
        ids = pa.chunked_array(self._ids, pa.large_string()).combine_chunks()
        return Requests(
            ids=ids,
            source_row=rows,
            token_ids=self._tokens.take(),
            offsets=offsets_of(self._lengths.take()),
            output_tokens=self._output.take(),
            max_tokens=self._cap.take(),
            bodies=bodies,
            estimated_tokens=self._estimated,
            source=source,
            sha256=sha256,
            answers=self._all_answers(),
        )

    def _all_answers(self) -> NDArray[np.int32] | None:
        if all(isinstance(part, int) for part in self._answers):
            return None
        ones = (
            np.ones(part, np.int32) if isinstance(part, int) else part for part in self._answers
        )
        return np.concatenate(list(ones))

    def _bodies(self) -> pa.Array | None:
        if not self._any_body:
            return None
        lengths = self._body_lengths.take()
        present = np.packbits(lengths > 0, bitorder="little")
        buffers = [
            None if (lengths > 0).all() else pa.py_buffer(present),
            pa.py_buffer(offsets_of(lengths)),
            pa.py_buffer(self._body_bytes.take()),
        ]
        return pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)
