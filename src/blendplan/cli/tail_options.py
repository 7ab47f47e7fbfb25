"""``--tail`` and ``--soonest``: makespan given up for answers that come sooner."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from blendplan.cli.names import Name
from blendplan.cli.partners import DependentOption
from blendplan.cli.ranges import Share

_PERCENTILES = ("p50", "p95", "p99")


def tail_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command; it gets them as ``trade``, the arguments of `plan`."""

    @click.option(
        "--tail",
        type=Share(above_zero=True),
        metavar="SHARE",
        help="Take settings of the policy by which requests are done sooner, if the makespan is "
        "longer by no more than this share.",
    )
    @click.option(
        "--soonest",
        cls=DependentOption,
        needs="--tail SHARE",
        default="p95",
        show_default=True,
        type=Name("percentile", _PERCENTILES),
        metavar="|".join(_PERCENTILES),
        help="Which of the requests --tail looks at: half, 95 % or 99 % of them done.",
    )
    @wraps(function)
    def command(*args: Any, tail: float | None, soonest: str, **kwargs: Any) -> None:
        function(*args, trade={"tail": tail, "soonest": soonest}, **kwargs)

    return command
