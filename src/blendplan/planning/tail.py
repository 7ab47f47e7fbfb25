"""`Tail`: how much longer a run may take for requests to be done sooner, and what that gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blendplan.checks.arguments import number, one_of

PERCENTILES = ("p50", "p95", "p99")
"""Of the turnaround: the time from the start of a run to a request's end."""

_MOST = 10.0


@dataclass(frozen=True)
class Tail:
    """What may be given up for what.

    Attributes:
        share: of the shortest makespan, by which another may be longer.
        soonest: the percentile of the turnaround that is to be as early as possible.

    Raises:
        BlendplanError: one of them is of another type or out of its range.
    """

    share: float
    soonest: str = "p95"

    def __post_init__(self) -> None:
        number("tail", self.share, 0.0, _MOST, above_least=True)
        one_of("soonest", self.soonest, PERCENTILES)

    def choose(self, makespans_s: Sequence[float], turnarounds_s: Sequence[float]) -> int:
        """The choice of the earliest turnaround whose makespan is short enough.

        Of equals the shortest run wins, then the first.

        Args:
            makespans_s: of each choice.
            turnarounds_s: its percentile.

        >>> Tail(0.05).choose([100.0, 104.0, 106.0], [90.0, 70.0, 50.0])
        1
        """
        makespans, turnarounds = np.array(makespans_s), np.array(turnarounds_s)
        allowed = np.flatnonzero(makespans <= (1.0 + self.share) * makespans.min())
        order = np.lexsort((makespans[allowed], turnarounds[allowed]))
        return int(allowed[order[0]])

    def told(
        self, makespans_s: Sequence[float], turnarounds_s: Sequence[float], chosen: int
    ) -> dict[str, Any]:
        """What the choice costs and gets, against the shortest run; JSON values."""
        best = int(np.argmin(makespans_s))
        return {
            "share": self.share,
            "soonest": self.soonest,
            "longer": makespans_s[chosen] / makespans_s[best] - 1.0,
            "sooner": 1.0 - turnarounds_s[chosen] / turnarounds_s[best],
        }
