"""Distributions of lengths over bins, some of the lengths only known to exceed a number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from blendplan.lengths.prior import MEDIAN, SIGMA

FloatArray = NDArray[np.float64]

# Bins for lengths that were seen, at most.
_SEEN_BINS = 96
# So many equal lengths are no accident: none but these are in their bin.
_HEAP = 3
# Bins beyond the longest length, each that much longer than the one before.
_BEYOND, _GROWTH = 16, 1.4
# Samples that the prior counts as where some requests have not ended: next to nothing but for
# lengths that few have reached.
_PRIOR_SAMPLES = 0.5


@dataclass(frozen=True)
class Bins:
    """Ranges of lengths: bin j is over ``upper[j - 1]`` (0 for the first) up to ``upper[j]``.

    Attributes:
        upper: rising; float64 [b].
        value: mean length in each; float64 [b].
    """

    upper: FloatArray
    value: FloatArray

    def __len__(self) -> int:
        return len(self.upper)

    def places(self, tokens: NDArray[np.int64], censored: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Bin of each length; b plus the first bin that it may be in, where it is censored; [k]."""
        ended = np.searchsorted(self.upper, tokens, side="left")
        first = np.searchsorted(self.upper, tokens, side="right")
        b = len(self)
        return np.where(censored, b + np.minimum(first, b - 1), np.minimum(ended, b - 1))

    def expected_beyond(
        self, tokens: NDArray[np.int64], masses: FloatArray, logarithm: bool
    ) -> FloatArray:
        """Expected length, or its logarithm, of those that exceed these; float64 [k].

        Args:
            tokens: int64 [k].
            masses: their distributions; float64 [k, b].
            logarithm: which of the two.
        """
        beyond = masses * (self.upper[None, :] > tokens[:, None])
        length = np.maximum(self.value[None, :], tokens[:, None] + 1.0)
        values = np.log(length) if logarithm else length
        total = beyond.sum(axis=1)
        mean = (beyond * values).sum(axis=1) / np.maximum(total, 1e-300)
        least = tokens + 1.0
        return np.where(total > 0.0, mean, np.log(least) if logarithm else least)


def bins_of(tokens: NDArray[np.int64], weights: FloatArray, censored: NDArray[np.bool_]) -> Bins:
    """Bins so fine that lengths that differ lie apart, where there are not too many of them."""
    upper, value = _seen(tokens[~censored], weights[~censored])
    if not censored.any():
        return Bins(upper, value)
    # Where only running requests have been so long, and beyond.
    longest = float(upper[-1]) if len(upper) else 0.0
    most = max(longest, float(tokens.max()), 4.0 * MEDIAN)
    least = max(longest, 1.0)
    between = least * (most / least) ** np.linspace(0.0, 1.0, _BEYOND + 1)
    ends = np.unique(np.rint(np.append(between, most * _GROWTH ** np.arange(1, _BEYOND + 1))))
    ends = ends[ends > longest]
    starts = np.append(longest, ends[:-1])
    middle = np.sqrt(np.maximum(starts, 1.0) * ends)
    return Bins(np.append(upper, ends), np.append(value, middle))


def _seen(tokens: NDArray[np.int64], weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Upper ends and mean lengths of bins for lengths that have come."""
    if not len(tokens):
        return np.empty(0), np.empty(0)
    seen, group = np.unique(tokens, return_inverse=True)
    share = np.bincount(group, weights) / weights.sum()
    heaps = seen[(np.bincount(group) >= _HEAP) & (share >= 1.0 / _SEEN_BINS)]
    ends = seen
    if len(seen) > _SEEN_BINS:
        steps = np.ceil(np.cumsum(share) * _SEEN_BINS - 1e-9)
        ends = seen[np.append(steps[1:] != steps[:-1], True)]
    # Nothing is shorter than the shortest, nor between a heap and the whole number before it.
    alone = np.append(heaps, seen[0])
    upper = np.unique(np.concatenate([ends, heaps, alone[alone > 1] - 1])).astype(np.float64)
    place = np.searchsorted(upper, tokens)
    mass = np.bincount(place, weights, len(upper))
    total = np.bincount(place, weights * tokens, len(upper))
    return upper, np.where(mass > 0.0, total / np.maximum(mass, 1e-300), upper)


def pooled(bins: Bins, place: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Probability of each bin by all samples; float64 [b].

    With a trace of a prior where some have not ended.
    """
    b = len(bins)
    shares = np.bincount(place, weights, 2 * b)
    below = ndtr((np.log(bins.upper) - np.log(MEDIAN)) / SIGMA)
    counts_as = _PRIOR_SAMPLES if shares[b:].any() else 0.0
    prior = counts_as * np.diff(below, prepend=0.0)
    prior[-1] += counts_as * (1.0 - below[-1])
    ended, censored = shares[:b] + prior, shares[b:]
    ending = np.cumsum(ended[::-1])[::-1]
    later = np.append(np.cumsum(censored[::-1])[::-1][1:], 0.0)
    hazard = np.minimum(1.0, ended / np.maximum(ending + later, 1e-300))
    alive = np.append(1.0, np.cumprod(1.0 - hazard))
    masses = alive[:-1] * hazard
    masses[-1] += alive[-1]
    return masses / masses.sum()
