"""`Outcome`: what a model says of a kernel, beside what was measured."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Outcome(NamedTuple):
    """Predictions beside measurements of one kernel; float64 [rows] each.

    ``roofline_s`` is what the datasheet's peaks alone would say.
    """

    operator: str
    gpu: str
    dtype: str
    kernel: str
    predicted_s: NDArray[np.float64]
    measured_s: NDArray[np.float64]
    roofline_s: NDArray[np.float64]
