"""Find the few parameters of an operator model: bounded, without derivatives, the same each run."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]
SHORT_SEARCH = 30  # evaluations per parameter from each start
LONG_SEARCH = 120  # and from the best of them
BEST_STARTS = 2


def minimise(
    error: Callable[[Vector], float],
    bounds: Sequence[tuple[float, float]],
    starts: Sequence[Sequence[float]],
) -> Vector:
    """The vector within bounds of least error that is found from the starts.

    The errors have steps (tile and wave counts are whole numbers) and several valleys, one for
    each way a kernel may cut its work. So the starts should name those ways: a short Nelder-Mead
    search from each, a long one from the best.

    Args:
        error: to minimise.
        bounds: lowest and highest value of each element; equal ones fix it.
        starts: vectors within the bounds.
    """
    from scipy.optimize import minimize  # a quarter of a second that planning need not wait for

    lowest, highest = np.array(bounds, np.float64).T

    def searched(start: Vector, evaluations: int) -> tuple[float, Vector]:
        """Search around one start, over the elements that its bounds leave free."""
        span = highest - lowest
        free = span > 0

        def vector(unit: Vector) -> Vector:
            whole = lowest.copy()
            whole[free] += span[free] * np.clip(unit, 0.0, 1.0)
            return whole

        unit = (start[free] - lowest[free]) / span[free]
        corners = np.tile(unit, (len(unit) + 1, 1))
        corners[1:] += np.diag(np.where(unit < 0.85, 0.15, -0.15))
        found = minimize(
            lambda point: error(vector(point)),
            unit,
            method="Nelder-Mead",
            options={
                "initial_simplex": np.clip(corners, 0.0, 1.0),
                "maxfev": evaluations * len(unit),
                "adaptive": True,
                "xatol": 5e-4,
                "fatol": 1e-6,
            },
        )
        return float(found.fun), vector(found.x)

    short = [searched(np.asarray(start, np.float64), SHORT_SEARCH) for start in starts]
    short.sort(key=lambda result: result[0])
    long = [searched(vector, LONG_SEARCH) for _, vector in short[:BEST_STARTS]]
    return min([*short[:1], *long], key=lambda result: result[0])[1]


def mean_absolute_share(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Mean of |predicted / measured - 1|; 1 is 100 %."""
    ratio = np.asarray(predicted, np.float64) / np.asarray(measured, np.float64)
    return float(np.abs(ratio - 1.0).mean())


def sampled(rows: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Sorted indices of at most ``most`` of that many rows, drawn evenly."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
