"""`LengthLearner`: features and lengths in, calibrated `Lengths` out; fitted as often as needed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.side_by_side import side_by_side
from blendplan.lengths.calibration import Calibration, calibrate
from blendplan.lengths.forest import LengthForest
from blendplan.lengths.predicted import OUTCOMES, Lengths

# Requests that one thread works on at a time.
_CHUNK = 8192


class LengthLearner:
    """A `LengthForest` with its `Calibration`.

    The same lengths come out whatever the order of the samples and the number of threads.

    Parameters:
        forest: what learns.

    Attributes:
        calibration_: by the samples that each tree was not grown from.
    """

    calibration_: Calibration

    def __init__(self, forest: LengthForest | None = None) -> None:
        self.forest = forest or LengthForest()

    def fit(
        self,
        features: NDArray[np.float32],
        tokens: NDArray[np.integer[Any]],
        weights: NDArray[np.float64] | None = None,
        censored: NDArray[np.bool_] | None = None,
    ) -> "LengthLearner":
        """Learn from k >= 1 samples.

        Args:
            features: float32 [k, f], see `request_features`.
            tokens: output length, at least 1; where censored, the length is more than that, which
                may be 0; int [k].
            weights: requests that each sample stands for, over 0; float64 [k]. All alike if None.
            censored: whether a request has not ended by itself; bool [k]. None if None.
        """
        lengths = tokens.astype(np.int64)
        weights = np.ones(len(lengths)) if weights is None else weights
        censored = np.zeros(len(lengths), dtype=np.bool_) if censored is None else censored
        forest = self.forest.fit(features, lengths, weights, censored)
        rows = forest.samples_
        self.calibration_ = calibrate(
            forest.bins_, forest.left_out_, lengths[rows], weights[rows], censored[rows]
        )
        return self

    def predict(self, features: NDArray[np.float32]) -> Lengths:
        """Lengths of n requests without any cap; features float32 [n, f]."""
        n = len(features)
        outcomes = np.empty((n, OUTCOMES), dtype=np.float32)
        p50, p90 = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)

        def fill(part: slice) -> None:
            masses = self.forest.masses(features[part])
            outcomes[part], p50[part], p90[part] = self.calibration_.columns(
                self.forest.bins_, masses
            )

        side_by_side(n, _CHUNK, fill)
        return Lengths.predicted(outcomes, p50, p90)
