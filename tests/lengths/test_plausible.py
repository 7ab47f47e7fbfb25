"""`plausible_outputs`: what a simulated run generates where lengths are not known."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendplan.lengths.plausible import plausible_outputs
from blendplan.lengths.predicted import OUTCOMES, log_normal_outcomes

NUMBERS = np.arange(4_000)


def test_they_have_the_predicted_mean_and_spread() -> None:
    outcomes = log_normal_outcomes(np.full(4_000, 200.0), np.full(4_000, 1.0))
    drawn = plausible_outputs(outcomes, NUMBERS, seed=5)
    # Standard error of the mean: 1.2 * 200 / sqrt(4000) = 3.8.
    assert abs(drawn.mean() - 200.0) < 12.0
    assert drawn.min() >= np.floor(outcomes[0, 0])
    assert drawn.max() <= np.ceil(outcomes[0, -1])
    quarters = np.quantile(drawn, [0.25, 0.5, 0.75])
    assert np.allclose(quarters, [62.0, 121.0, 238.0], rtol=0.15)


def test_known_lengths_stay_as_they_are() -> None:
    known = np.repeat([[1.0], [7.0], [4_096.0]], OUTCOMES, axis=1)
    assert plausible_outputs(known, np.arange(3), seed=1).tolist() == [1, 7, 4_096]


@given(seed=st.integers(0, 2**32 - 1), chosen=st.sets(st.integers(0, 299), min_size=1))
def test_a_request_draws_the_same_wherever_it_stands(seed: int, chosen: set[int]) -> None:
    outcomes = log_normal_outcomes(np.linspace(2.0, 900.0, 300), np.full(300, 0.8))
    whole = plausible_outputs(outcomes, NUMBERS[:300], seed)
    rows = np.array(sorted(chosen, key=lambda row: row * 7919 % 300))
    assert np.array_equal(plausible_outputs(outcomes[rows], rows, seed), whole[rows])


def test_another_seed_gives_other_draws_that_have_nothing_to_do_with_them() -> None:
    outcomes = log_normal_outcomes(np.full(4_000, 200.0), np.full(4_000, 1.0))
    one, two, after = (plausible_outputs(outcomes, NUMBERS, seed) for seed in (0, 1, 0))
    assert np.array_equal(one, after)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.06
