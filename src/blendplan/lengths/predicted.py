"""`Lengths`: predicted output lengths as columns."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SOURCES = ("known", "sample", "history", "prior")


@dataclass(frozen=True)
class Lengths:
    """Predicted output length of n requests, in tokens, at least 1.

    Attributes:
        mean: expected output length; float32 [n].
        p50, p90: quantiles of the prediction, equal to the mean where it is known; float32 [n].
        source: index into `SOURCES` of what the prediction rests on; int8 [n].
        note: one sentence for the user when a prediction is weak, else empty.
    """

    mean: NDArray[np.float32]
    p50: NDArray[np.float32]
    p90: NDArray[np.float32]
    source: NDArray[np.int8]
    note: str = ""

    def __len__(self) -> int:
        return len(self.mean)


class Summary(NamedTuple):
    """What a predictor says of n output lengths in tokens: mean and quantiles; float64 [n]."""

    mean: NDArray[np.float64]
    p50: NDArray[np.float64]
    p90: NDArray[np.float64]
