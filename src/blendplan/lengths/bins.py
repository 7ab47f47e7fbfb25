"""`BinnedFactor`: how lengths depend on a number that every request has, say its prompt length."""

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.credibility import FloatArray, Moments, compare_groups, credibility


class BinnedFactor:
    """A factor on the expected length, constant over each bin of a number, group by group.

    Samples of a group are cut into bins of equal size by that number. The mean of a bin is shrunk
    towards that of its group as far as their differences are no more than chance: where the number
    says nothing of the length, the factor is 1 or next to it.

    Parameters:
        bins: most bins of a group.
        bin_samples: fewest samples of a bin; a group with fewer than twice that has one bin.
        prior_samples: samples that the belief in no dependence counts as.

    Attributes:
        group_: group of each bin, rising; int64 [b].
        first_: smallest number in each bin, rising within a group; int64 [b].
        factor_: expected length over what was expected before, its mean over the samples of a group
            1; float64 [b].
        leverage_: how much of it is due to one sample of the bin; float64 [b].
    """

    group_: NDArray[np.int64]
    first_: NDArray[np.int64]
    factor_: FloatArray
    leverage_: FloatArray

    def __init__(self, bins: int = 32, bin_samples: int = 10, prior_samples: float = 4.0) -> None:
        self.bins = bins
        self.bin_samples = bin_samples
        self.prior_samples = prior_samples

    def fit(
        self,
        group: NDArray[np.int64],
        number: NDArray[np.int64],
        ratio: FloatArray,
        weights: FloatArray | None = None,
    ) -> "BinnedFactor":
        """Learn from k >= 1 samples.

        Args:
            group: groups learn nothing of each other; int64 [k].
            number: what the length may depend on; int64 [k].
            ratio: length over what was expected; float64 [k].
            weights: how much each counts among the samples of its group, over 0; float64 [k].
        """
        weight = np.ones(len(ratio)) if weights is None else weights
        order = np.lexsort((weight, ratio, number, group))
        group, number, ratio, weight = group[order], number[order], ratio[order], weight[order]
        k = len(order)
        new_group = np.concatenate([[True], group[1:] != group[:-1]])
        new_number = new_group | np.concatenate([[True], number[1:] != number[:-1]])
        population = np.cumsum(new_group) - 1
        start = np.flatnonzero(new_group)
        size = np.diff(np.append(start, k))
        bins = np.clip(size // self.bin_samples, 1, self.bins)
        # Equal numbers share the bin of the first of them.
        run = np.flatnonzero(new_number)[np.cumsum(new_number) - 1]
        place = (run - start[population]) * bins[population] // size[population]
        new_bin = new_group | np.concatenate([[True], place[1:] != place[:-1]])
        member = np.cumsum(new_bin) - 1
        weight = weight * (size / np.bincount(population, weight))[population]
        count = np.bincount(member, weight).astype(np.float64)
        total = np.bincount(member, weight * ratio).astype(np.float64)
        squares = np.bincount(member, weight * ratio * ratio).astype(np.float64)
        moments = Moments(count, total, squares)
        of_bin = population[new_bin]
        evidence, within = compare_groups(moments, of_bin, len(start), self.prior_samples)
        share = credibility(
            moments,
            evidence.ratio(0.0, self.prior_samples)[of_bin],
            within[of_bin],
            self.prior_samples,
        )
        mean = np.bincount(population, weight * ratio) / size
        factor = mean[of_bin] + share * (moments.mean - mean[of_bin])
        whole = np.bincount(of_bin, factor * count) / size
        self.group_, self.first_ = group[new_bin], number[new_bin]
        self.factor_ = factor / whole[of_bin]
        self.leverage_ = np.minimum(0.5, share / np.bincount(member))
        return self

    def predict(self, group: NDArray[np.int64], number: NDArray[np.int64]) -> FloatArray:
        """Factor of requests of those groups with those numbers, 1 in an unknown group; [n]."""
        bins, known = self._bin_of(group, number)
        return np.where(known, self.factor_[bins], 1.0)

    def leverage(self, group: NDArray[np.int64], number: NDArray[np.int64]) -> FloatArray:
        """How much of a sample's own length is in its factor, 0 to 1/2; float64 [n]."""
        bins, known = self._bin_of(group, number)
        return np.where(known, self.leverage_[bins], 0.0)

    def _bin_of(
        self, group: NDArray[np.int64], number: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Bin of each request, and whether its group has any."""
        low = np.searchsorted(self.group_, group, side="left")
        high = np.searchsorted(self.group_, group, side="right")
        lowest = int(min(self.first_.min(), number.min(initial=0)))
        width = int(max(self.first_.max(), number.max(initial=0))) - lowest + 2
        # One rising key for group and number.
        rank = np.cumsum(np.concatenate([[0], self.group_[1:] != self.group_[:-1]]))
        keys = rank * width + (self.first_ - lowest)
        at = np.minimum(low, len(keys) - 1)
        wanted = rank[at] * width + (number - lowest)
        place = np.searchsorted(keys, wanted, side="right") - 1
        return np.clip(place, at, np.maximum(at, high - 1)), high > low
