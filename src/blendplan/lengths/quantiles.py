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
        weights: how often each counts, over 0; float64 [k], by default once.
    """

    def __init__(
        self, values: NDArray[np.float64], weights: NDArray[np.float64] | None = None
    ) -> None:
        order = np.argsort(values, kind="stable")
        self._sorted = values[order]
        rank = np.empty(len(values), dtype=np.int64)
        rank[order] = np.arange(len(values))
        weights = np.ones(len(values)) if weights is None else weights
        self._zeros, self._weights = _wavelet_matrix(
            rank, weights, max(1, int(len(values) - 1).bit_length())
        )
        self._before = np.concatenate([[0.0], np.cumsum(weights)])

    def quantile(
        self, q: float, start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The smallest value of each stretch that at least a share q of it does not exceed."""
        wanted = np.maximum(np.ceil(q * (end - start)).astype(np.int64) - 1, 0)
        return self.ranked(wanted, start, end)

    def ranked(
        self, wanted: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The value that comes ``wanted``-th, from 0, in each stretch when that is sorted."""
        values: NDArray[np.float64] = self._sorted[_ranked(self._zeros, start, end, wanted)]
        return values

    def foretold(
        self, q: float, start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The smallest value that a further one of each stretch's kind stays under at least so
        often, by weight; the largest of the stretch where it has too few to say so.
        """
        weight = self._before[end] - self._before[start]
        wanted = np.minimum(weight, q * weight * (1.0 + 1.0 / (end - start)))
        found = _heavier(self._zeros, self._weights, start, end, wanted)
        values: NDArray[np.float64] = self._sorted[found]
        return values


@kernel
def _wavelet_matrix(
    rank: NDArray[np.int64], weight: NDArray[np.float64], bits: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each bit from the highest, how many of the first i numbers have a 0, and their weight.

    After each bit the numbers with a 0 there come first, each part in the order it had. Both
    results are [bits, k + 1].
    """
    k = len(rank)
    zeros = np.zeros((bits, k + 1), dtype=np.int64)
    weights = np.zeros((bits, k + 1))
    # Number r has the weight of_rank[r].
    of_rank = np.empty(k)
    of_rank[rank] = weight
    now = rank.copy()
    after = np.empty_like(now)
    for level in range(bits):
        shift = bits - 1 - level
        for i in range(k):
            one = (now[i] >> shift) & 1
            zeros[level, i + 1] = zeros[level, i] + 1 - one
            weights[level, i + 1] = weights[level, i] + (0.0 if one else of_rank[now[i]])
        for i in range(k):
            if (now[i] >> shift) & 1:
                after[zeros[level, k] + i - zeros[level, i]] = now[i]
            else:
                after[zeros[level, i]] = now[i]
        now, after = after, now
    return zeros, weights


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


@kernel
def _heavier(
    zeros: NDArray[np.int64],
    weights: NDArray[np.float64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    wanted: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The first number of each stretch, sorted, up to which the weights sum to so much."""
    bits, k = zeros.shape[0], zeros.shape[1] - 1
    found = np.zeros(len(start), dtype=np.int64)
    for i in range(len(start)):
        s, e, left = start[i], end[i], wanted[i]
        for level in range(bits):
            below = zeros[level, e] - zeros[level, s]
            weight = weights[level, e] - weights[level, s]
            found[i] *= 2
            # What rounding leaves must not lead to where there is no number.
            if below == e - s or (below > 0 and left <= weight):
                s, e = zeros[level, s], zeros[level, e]
            else:
                left -= weight
                s += zeros[level, k] - zeros[level, s]
                e += zeros[level, k] - zeros[level, e]
                found[i] += 1
    return found
