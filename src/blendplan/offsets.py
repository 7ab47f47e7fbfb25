"""`offsets_of`: where each of many pieces begins when they stand one after the other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Offsets of n pieces of these lengths, with the end of the last; int64 [n + 1]."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
