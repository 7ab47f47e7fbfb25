"""The overlap exponent of two engines side by side."""

import pytest

from blendplan.proving.parts.overlap import exponent


@pytest.mark.parametrize("q", [0.8, 1.0, 1.7, 4.0])
@pytest.mark.parametrize(("one_s", "other_s"), [(3.0, 4.0), (5.0, 1.0)])
def test_the_exponent_is_found_again(q: float, one_s: float, other_s: float) -> None:
    together_s = (one_s**q + other_s**q) ** (1 / q)
    assert exponent(one_s, other_s, together_s) == pytest.approx(q, rel=1e-6)


def test_one_after_the_other_is_one() -> None:
    assert exponent(2.0, 3.0, 5.0) == pytest.approx(1.0)


def test_no_longer_than_the_longer_one_is_as_good_as_perfect() -> None:
    assert exponent(2.0, 3.0, 2.9) == 50.0


def test_much_worse_than_one_after_the_other_has_none() -> None:
    assert exponent(2.0, 3.0, 9.0) is None
