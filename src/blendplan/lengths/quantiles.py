"""`RangeQuantiles`: quantiles of any stretch of a list of numbers."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel


class RangeQuantiles:
    """Quantiles of ``values[start:end]`` in log k steps each, by a wavelet matrix.

    Subtrees overlap, and their samples together can be far more than the samples there are; so the
    samples of each are not gathered.

    Args:
        values: float64 [k].
    """

    def __init__(self, values: NDArray[np.float64]) -> None:
        order = np.argsort(values, kind="stable")
        self._sorted = values[order]
        rank = np.empty(len(values), dtype=np.int64)
        rank[order] = np.arange(len(values))
        self._zeros = _wavelet_matrix(rank, max(1, int(len(values) - 1).bit_length()))

    def quantile(
        self, q: float, start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The smallest value of each stretch that at least a share q of it does not exceed."""
        wanted = np.maximum(np.ceil(q * (end - start)).astype(np.int64) - 1, 0)
        values: NDArray[np.float64] = self._sorted[_ranked(self._zeros, start, end, wanted)]
        return values


@kernel
def _wavelet_matrix(rank: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """For each bit from the highest, how many of the first i numbers have a 0; [bits, k + 1].

    After each bit the numbers with a 0 there come first, each part in the order it had.
    """
    k = len(rank)
    zeros = np.zeros((bits, k + 1), dtype=np.int64)
    now = rank.copy()
    after = np.empty_like(now)
    for level in range(bits):
        shift = bits - 1 - level
        for i in range(k):
            zeros[level, i + 1] = zeros[level, i] + 1 - ((now[i] >> shift) & 1)
        for i in range(k):
            if (now[i] >> shift) & 1:
                after[zeros[level, k] + i - zeros[level, i]] = now[i]
            else:
                after[zeros[level, i]] = now[i]
        now, after = after, now
    return zeros


@kernel
def _ranked(
    zeros: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The number that comes ``wanted``-th, from 0, in each stretch when that is sorted."""
    bits, k = zeros.shape[0], zeros.shape[1] - 1
    found = np.zeros(len(start), dtype=np.int64)
    for i in range(len(start)):
        s, e, left = start[i], end[i], wanted[i]
        for level in range(bits):
            below = zeros[level, e] - zeros[level, s]
            found[i] *= 2
            if left < below:
                s, e = zeros[level, s], zeros[level, e]
            else:
                left -= below
                s += zeros[level, k] - zeros[level, s]
                e += zeros[level, k] - zeros[level, e]
                found[i] += 1
    return found
