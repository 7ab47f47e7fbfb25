"""The built-in token estimate: four UTF-8 bytes are one token.

The bytes themselves are the token id, so two texts share exactly as many estimated tokens as they
share whole groups of four leading bytes, and no vocabulary is needed.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.kernel import kernel

BYTES_PER_TOKEN = 4


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
def put(
    groups: NDArray[np.uint8], place: int, data: NDArray[np.uint8], start: int, end: int
) -> int:
    """Copy ``data[start:end]`` to `place`; returns where the next piece goes."""
    # Over slices, the compiler knows that no index is negative and copies many bytes at a time.
    source = data[start:end]
    target = groups[place : place + len(source)]
    for i in range(len(source)):
        target[i] = source[i]
    return place + len(source)


@kernel
def _pack(data: NDArray[np.uint8], offsets: NDArray[np.int64], groups: NDArray[np.uint8]) -> None:
    """Copy each text to the next multiple of four bytes in `groups`, which is zero before."""
    place = 0
    for text in range(len(offsets) - 1):
        place = put(groups, place, data, offsets[text], offsets[text + 1])
        place = (place + 3) // 4 * 4
