"""Types of numeric options: the ranges of the library, so that a wrong number is wrong usage."""

import math
from typing import Any

import click

from blendplan.checks.ranges import RANGES


class _Within(click.IntRange):
    """As click's, but a wrong number is told the one bound that it breaks."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = click.INT.convert(value, param, ctx)
        if self.min is not None and number < self.min:
            self.fail(f"{number} is not in the range x>={self.min}.", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{number} is not in the range x<={self.max}.", param, ctx)
        return number


def within(name: str) -> click.IntRange:
    """A whole number within the limits of that name."""
    least, most = RANGES[name]
    return _Within(least, most)


class Share(click.FloatRange):
    """A number from 0 to 1, or above 0."""

    def __init__(self, *, above_zero: bool = False) -> None:
        super().__init__(0, 1, min_open=above_zero)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        share = super().convert(value, param, ctx)
        if math.isnan(share):  # which no comparison refuses
            self.fail(f"{share} is not in the range 0 to 1.", param, ctx)
        return share
