"""``--within`` and ``--already`` of `plan`: what of a job to plan now, and what is for later."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.durations import window_options
from blendplan.cli.names import Name
from blendplan.cli.options import FILE
from blendplan.cli.partners import DependentOption

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan
    from blendplan.requests.columns import Requests

_FIRST = ("work", "priority")


@dataclass(frozen=True)
class PartOptions:
    """What of a job is to be planned.

    Attributes:
        within_s: time that the run may take, None for all that it needs.
        chance: probability with which it must end in time.
        first: what goes first.
        already: plans and results of what is not to be planned again.
    """

    within_s: float | None
    chance: float
    first: str
    already: tuple[Path, ...]

    def refuse(self, where: str) -> None:
        """Refuse these options where all is planned.

        Raises:
            click.UsageError: one is given.
        """
        if self.within_s is not None or self.already:
            raise click.UsageError(f"--within and --already plan into a file; {where}")

    @property
    def window(self) -> dict[str, Any]:
        """The arguments of `plan`."""
        return {"within_s": self.within_s, "chance": self.chance, "first": self.first}

    def left(self, requests: "Requests") -> "Requests":
        """The requests that are still to be planned.

        Raises:
            BlendplanError: see `leave_aside`.
        """
        if not self.already:
            return requests
        from blendplan.planning.already import leave_aside

        return leave_aside(requests, self.already)

    def covered(self, plan: "Plan", before: "Requests", left: "Requests") -> "Plan":
        """The plan, saying also what becomes of every request of the file, where not all are in it.

        Args:
            plan: as made.
            before, left: all requests, and those of them that were to be planned.
        """
        if self.within_s is None and not self.already:
            return plan
        repeated = 0 if before.copies is None else int(before.copies.sum())
        return plan.covering(
            {
                "file": len(before) + repeated + before.rejected,
                "planned": plan.requests,
                "postponed": plan.metadata.get("window", {}).get("postponed", 0),
                "already": len(before) - len(left),
                "repeated": repeated,
                "rejected": before.rejected,
            }
        )


def part_of_job(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command; it gets them as ``part``."""

    @window_options(
        "Plan as many requests as a run of that time has room for, such as 6h or 1h30min; the rest "
        "is for the next plan, with --already."
    )
    @click.option(
        "--first",
        cls=DependentOption,
        needs="--within TIME",
        default=_FIRST[0],
        show_default=True,
        type=Name("order", _FIRST),
        metavar="work|priority",
        help="Which requests --within takes first: families with the most work per second, or "
        "those of the lowest priority number.",
    )
    @click.option(
        "--already",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="An earlier plan of these requests, or results: what is in it is not planned again. "
        "May be given several times.",
    )
    @wraps(function)
    def command(
        *args: Any,
        within_s: float | None,
        chance: float,
        first: str,
        already: tuple[Path, ...],
        **kwargs: Any,
    ) -> None:
        function(*args, part=PartOptions(within_s, chance, first, already), **kwargs)

    return command
