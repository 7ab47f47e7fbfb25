"""The built-in token estimate: four UTF-8 bytes are one token.

The bytes themselves are the token id, so two texts share exactly as many estimated tokens as they
share whole groups of four leading bytes, and no vocabulary is needed.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.requests.record import Record, render, utf8

BYTES_PER_TOKEN = 4


class PreparedText(NamedTuple):
    """A prompt as text, ready to be turned into token ids.

    `exact` tells whether its token ids will be those that an engine would see.
    """

    text: bytes
    add_special_tokens: bool
    exact: bool


class Tokens(Protocol):
    """Turns the text of checked records into token ids."""

    def prepare(self, record: Record) -> PreparedText:
        """The text of a record without token ids; raises `BadRecordError`."""

    def encode(self, texts: Sequence[PreparedText]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids of all texts, int32 [total], and the number of each, int64 [n]."""


class Estimate:
    """The built-in estimate as `Tokens`."""

    def prepare(self, record: Record) -> PreparedText:
        """The prompt, or messages written out in a fixed form."""
        return PreparedText(utf8(render(record), "the prompt"), False, exact=False)

    def encode(self, texts: Sequence[PreparedText]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Four bytes a token."""
        return estimate_tokens(pa.array([text.text for text in texts], pa.large_binary()))


def estimate_tokens(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Token ids of each text, one after the other, and how many each text has.

    Args:
        texts: large_binary or large_string [n], no nulls.

    Returns:
        token ids, int32 [total]: four bytes each, little-endian, the last group filled with zeros
        (so an id may be negative); and lengths, int64 [n].
    """
    offsets, data = binary_parts(texts)
    lengths = -(-np.diff(offsets) // BYTES_PER_TOKEN)
    groups = np.zeros(int(lengths.sum()) * BYTES_PER_TOKEN, np.uint8)
    _pack(data, offsets, groups)
    return groups.view("<i4").astype(np.int32, copy=False), lengths


def binary_parts(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets, int64 [n + 1], and bytes, uint8, of a large_binary or large_string array."""
    _, offset_buffer, data_buffer = values.buffers()
    end = values.offset + len(values) + 1
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : end]
    return offsets, np.frombuffer(data_buffer or b"", np.uint8)


@kernel
def _pack(data: NDArray[np.uint8], offsets: NDArray[np.int64], groups: NDArray[np.uint8]) -> None:
    """Copy each text to the next multiple of four bytes in `groups`, which is zero before."""
    place = 0
    for text in range(len(offsets) - 1):
        start, end = offsets[text], offsets[text + 1]
        for i in range(end - start):
            groups[place + i] = data[start + i]
        place += (end - start + 3) // 4 * 4
