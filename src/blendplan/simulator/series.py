"""`Series`: what happened step by step, thinned to a fixed number of points as it is recorded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel

POINTS = 512
SERIES = (
    "end_s",
    "step_s",
    "compute_s",
    "memory_s",
    "kv_tokens",
    "running",
    "prefill_tokens",
    "decode_tokens",
)
END_S = 0


class Series(NamedTuple):
    """Sums over groups of consecutive steps, of equal length except the last.

    When all groups are in use, neighbours are merged and groups become twice as long.

    Attributes:
        sums: one row per entry of `SERIES`; ``end_s`` is the clock at the end of the group, all
            others are sums over its steps; float64 [8, POINTS].
        group_steps: steps per group; int64 [1].
    """

    sums: NDArray[np.float64]
    group_steps: NDArray[np.int64]


def empty_series() -> Series:
    """A series with nothing recorded."""
    return Series(np.zeros((len(SERIES), POINTS)), np.ones(1, dtype=np.int64))


@kernel
def record(
    series: Series,
    step: int,
    end_s: float,
    step_s: float,
    compute_s: float,
    memory_s: float,
    kv_tokens: int,
    running: int,
    prefill_tokens: int,
    decode_tokens: int,
) -> None:
    """Add step number ``step``, counted from 0."""
    sums = series.sums
    group = step // series.group_steps[0]
    if group == POINTS:
        _halve(series)
        group = step // series.group_steps[0]
    sums[END_S, group] = end_s
    sums[1, group] += step_s
    sums[2, group] += compute_s
    sums[3, group] += memory_s
    sums[4, group] += kv_tokens
    sums[5, group] += running
    sums[6, group] += prefill_tokens
    sums[7, group] += decode_tokens


@kernel
def _halve(series: Series) -> None:
    sums = series.sums
    for group in range(POINTS // 2):
        sums[END_S, group] = sums[END_S, 2 * group + 1]
        for row in range(1, len(sums)):
            sums[row, group] = sums[row, 2 * group] + sums[row, 2 * group + 1]
    sums[:, POINTS // 2 :] = 0.0
    series.group_steps[0] *= 2


def means(series: Series, steps: int) -> dict[str, NDArray[np.float64]]:
    """The recorded points: the clock at the end of each group and means over its steps."""
    per_group = int(series.group_steps[0])
    groups = -(-steps // per_group)
    lengths = np.full(groups, per_group, dtype=np.float64)
    if groups:
        lengths[-1] = steps - per_group * (groups - 1)
    points = {name: series.sums[row, :groups] / lengths for row, name in enumerate(SERIES)}
    points["end_s"] = series.sums[END_S, :groups].copy()
    return points
