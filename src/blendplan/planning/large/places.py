"""The place of a request among many files: file and row in one number that sorts as both do.

Where a file's rows begin among all rows is known when all files before it are read; until then, a
request is known by its place.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ROW_BITS = 40

MOST_FILES = 1 << (63 - _ROW_BITS)


def place_of(file: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of some rows, from 0, of a file; int64 [k]."""
    return rows + (file << _ROW_BITS)


def file_of(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The file of each place; int64 [k]."""
    return places >> _ROW_BITS


def row_of(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each place in its file; int64 [k]."""
    return places & ((1 << _ROW_BITS) - 1)


def rows_over_all(places: NDArray[np.int64], file_rows: Sequence[int]) -> NDArray[np.int64]:
    """The row of each place among the rows of all files, one file after the other; int64 [k]."""
    before = np.concatenate([[0], np.cumsum(file_rows)]).astype(np.int64)
    return before[file_of(places)] + row_of(places)
