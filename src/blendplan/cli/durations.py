"""`Duration`: a length of time as people type it, such as ``6h`` or ``1h30min``."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.partners import DependentOption
from blendplan.cli.ranges import Share

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # generic in recent click only
    ParamType = click.ParamType

_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
_PART = r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)\s*"
_WHOLE = re.compile(rf"(?:{_PART})+")
_LONGEST_S = 3.2e9  # a century


class Duration(ParamType):
    """Seconds of a length of time that is longer than nothing."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        words = str(value).strip().lower()
        if words.startswith("-"):
            self.fail(
                f"{value!r} is in the past; give a length of time from now, as 6h", param, ctx
            )
        if not _WHOLE.fullmatch(words):
            self.fail(
                f"{value!r} is no length of time; give one such as 6h, 90min or 1h30min", param, ctx
            )
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, words))
        if seconds <= 0:
            self.fail(f"{value!r} is no time at all; give a length of time such as 6h", param, ctx)
        if seconds > _LONGEST_S:
            self.fail(f"{value!r} is longer than a century; give a shorter time", param, ctx)
        return seconds


def window_options(purpose: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add ``--within`` and ``--chance`` to a command; `purpose` says what the first is for."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        function = click.option(
            "--chance",
            cls=DependentOption,
            needs="--within TIME",
            default=0.9,
            show_default=True,
            type=Share(above_zero=True),
            metavar="SHARE",
            help="How probable it must be that the run ends within that time, by what is known of "
            "output lengths.",
        )(function)
        return click.option("--within", "within_s", type=Duration(), metavar="TIME", help=purpose)(
            function
        )

    return add
