"""Some of the requests that stand for all of them."""

import numpy as np
import pytest

from blendplan.planning.part import thinned_rows


@pytest.mark.parametrize("shift", [0.0, 0.5, 0.97])
@pytest.mark.parametrize(
    ("n", "most"),
    [(10, 10), (10, 3), (1_000, 999), (5_000, 64), (12_345, 4_000), (60_000, 50_000)],
)
def test_so_many_are_taken_evenly_and_with_their_neighbours(
    n: int, most: int, shift: float
) -> None:
    order = np.random.default_rng(n).permutation(n)
    rows = thinned_rows(order, most, shift)
    assert len(rows) == most
    assert (np.diff(rows) > 0).all()
    chosen = np.isin(order, rows)
    together = max(1, min(64, most // 64))
    assert np.abs(np.cumsum(chosen) - np.arange(1, n + 1) * most / n).max() <= together + 1
    stretches = np.count_nonzero(chosen[1:] & ~chosen[:-1]) + chosen[0]
    assert stretches <= -(-most // together)
