"""`Calibration`: what predictions for left-out samples say of those for all others."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from blendplan.kernels.kernel import kernel
from blendplan.lengths.predicted import OUTCOMES
from blendplan.lengths.survival import Bins

FloatArray = NDArray[np.float64]

# Points at which the corrected probabilities are tabulated.
_POINTS = 1024
# Points of a bin that a sample in it stands for.
_SPREAD = 5
# Fewer samples than that correct nothing.
_FEWEST = 20
# Samples that the belief in the predictions as they are counts as.
_TRUST = 100.0
# Relative error of a mean by the forest that is nothing unusual.
_USUAL_BIAS = 0.1


@dataclass(frozen=True)
class Calibration:
    """Corrections of predicted distributions.

    Attributes:
        level: probability of a length up to which the forest says i / (c - 1); float64 [c].
        ratio: what to multiply means with, so that totals come out right.
    """

    level: FloatArray
    ratio: float

    def columns(
        self, bins: Bins, masses: FloatArray
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Outcomes, p50 and p90 of n requests with these probabilities of bins; float32.

        The outcomes are the means of the tenths of each distribution; [n, OUTCOMES].
        """
        n = len(masses)
        outcomes = np.zeros((n, OUTCOMES), dtype=np.float32)
        p50, p90 = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
        _tenths(masses, bins.upper, bins.value, self.level, outcomes, p50, p90)
        outcomes *= np.float32(self.ratio)
        return outcomes, p50, p90


def calibrate(
    bins: Bins,
    masses: FloatArray,
    tokens: NDArray[np.int64],
    weights: FloatArray,
    censored: NDArray[np.bool_],
) -> Calibration:
    """Compare predictions with what came.

    Args:
        bins: b bins.
        masses: prediction for each of k samples by what had not seen it; float64 [k, b].
        tokens, weights, censored: of the samples, see `LengthForest.fit`; [k].
    """
    if len(tokens) < _FEWEST:
        return Calibration(np.linspace(0.0, 1.0, 2), 1.0)
    weights = weights / weights.mean()
    level = _levels(bins, masses, tokens, weights, censored)
    outcomes, _, _ = Calibration(level, 1.0).columns(bins, masses)
    mean = outcomes.mean(axis=1, dtype=np.float64)
    actual = tokens.astype(np.float64)
    if censored.any():
        actual[censored] = bins.expected_beyond(tokens[censored], masses[censored], logarithm=False)
    return Calibration(level, _ratio(mean, actual, weights))


def _ratio(mean: FloatArray, actual: FloatArray, weights: FloatArray) -> float:
    """Actual over predicted total, leaning on 1 as far as the difference may be chance."""
    total = (weights * mean).sum()
    ratio = (weights * actual).sum() / total
    chance = (weights**2 * (actual - ratio * mean) ** 2).sum() / total**2
    return float(1.0 + (ratio - 1.0) * _USUAL_BIAS**2 / (_USUAL_BIAS**2 + chance))


def _levels(
    bins: Bins,
    masses: FloatArray,
    tokens: NDArray[np.int64],
    weights: FloatArray,
    censored: NDArray[np.bool_],
) -> FloatArray:
    """Corrected probabilities, see `Calibration.level`.

    Where the predictions are right, the probability of a length up to the one that came is evenly
    spread, and its normal score normal. Shift and scale of the scores are corrected; scores of
    requests that still run are those beyond what they have (expectation maximisation).
    """
    upto = np.cumsum(masses, axis=1)
    rows = np.arange(len(tokens))
    b = len(bins)
    place = bins.places(tokens, censored) % b
    high = upto[rows, place]
    low = high - masses[rows, place]
    points = (np.arange(_SPREAD) + 0.5) / _SPREAD
    scores = ndtri(np.clip(low[:, None] + (high - low)[:, None] * points, 1e-4, 1.0 - 1e-4))
    beyond = ndtri(np.clip(low[censored], 1e-4, 1.0 - 1e-4))
    weight = np.where(censored, 0.0, weights)
    total = weights.sum() + _TRUST
    sums = (weight[:, None] * scores).sum() / _SPREAD
    squares = (weight[:, None] * scores**2).sum() / _SPREAD
    shift, scale = 0.0, 1.0
    for _ in range(20 if censored.any() else 1):
        z = (beyond - shift) / scale
        inverse = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) / np.maximum(ndtr(-z), 1e-12)
        first = shift + scale * inverse
        second = shift**2 + 2.0 * shift * scale * inverse + scale**2 * (1.0 + z * inverse)
        here = weights[censored]
        mean = (sums + (here * first).sum()) / total
        square = (squares + (here * second).sum() + _TRUST) / total
        shift, scale = mean, np.sqrt(max(0.04, square - mean**2))
    grid = np.linspace(0.0, 1.0, _POINTS + 1)
    level = np.empty(_POINTS + 1)
    level[1:-1] = ndtr((ndtri(grid[1:-1]) - shift) / scale)
    level[0], level[-1] = 0.0, 1.0
    return level


@kernel
def _tenths(
    masses: NDArray[np.float64],
    upper: NDArray[np.float64],
    value: NDArray[np.float64],
    level: NDArray[np.float64],
    outcomes: NDArray[np.float32],
    p50: NDArray[np.float32],
    p90: NDArray[np.float32],
) -> None:
    """Mean of each tenth of each distribution, and two quantiles."""
    n, b = masses.shape
    tenths = outcomes.shape[1]
    points = len(level) - 1
    for row in range(n):
        before, raw, tenth = 0.0, 0.0, 0
        total = 0.0
        p50[row] = p90[row] = upper[b - 1]
        for j in range(b):
            raw += masses[row, j]
            at = min(max(raw, 0.0), 1.0) * points
            cell = min(int(at), points - 1)
            upto = level[cell] + (level[cell + 1] - level[cell]) * (at - cell)
            if j == b - 1 or upto > 1.0 - 1e-9:
                upto = 1.0
            if upto <= before:
                continue
            # Half a token further: a whole number stands for all that round to it.
            lower = (upper[j - 1] if j > 0 else 0.0) + 0.5
            width = upper[j] + 0.5 - lower
            if before < 0.5 <= upto:
                p50[row] = lower + width * (0.5 - before) / (upto - before)
            if before < 0.9 <= upto:
                p90[row] = lower + width * (0.9 - before) / (upto - before)
            while tenth < tenths:
                end = (tenth + 1) / tenths
                total += (min(upto, end) - before) * value[j] * tenths
                before = min(upto, end)
                if upto < end:
                    break
                outcomes[row, tenth] = total
                total = 0.0
                tenth += 1
            before = upto
            if tenth == tenths:
                break
        while tenth < tenths:
            outcomes[row, tenth] = value[b - 1] if total == 0.0 else total
            total = 0.0
            tenth += 1
