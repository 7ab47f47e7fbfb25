"""`PlanOptions`: how requests are to be planned, checked; shared by `plan` and `compare`."""

from dataclasses import dataclass

from blendplan.checks.arguments import (
    LONGEST_NAME,
    LONGEST_PATH,
    flag,
    function,
    instance,
    number,
    text,
    whole,
)
from blendplan.planning.prepare import Progress
from blendplan.planning.tail import Tail
from blendplan.requests.columns import Requests


@dataclass(frozen=True)
class PlanOptions:
    """The arguments of `plan` that describe neither requests nor machine.

    Raises:
        BlendplanError: one of them is of another type or out of its range.
    """

    replicas: int
    lengths: str
    preserve_sharing: float
    seed: int
    effort: int
    replan: bool
    progress: Progress | None
    tail: Tail | None = None

    def __post_init__(self) -> None:
        if self.progress is not None:
            function("progress", self.progress)
        checked = {
            "replicas": whole("replicas", self.replicas),
            "lengths": _lengths(self.lengths),
            "preserve_sharing": number("preserve_sharing", self.preserve_sharing, 0.0, 1.0),
            "seed": whole("seed", self.seed),
            "effort": whole("effort", self.effort),
            "replan": flag("replan", self.replan),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def check_requests(requests: object) -> None:
    """Refuse what is no `Requests`.

    Raises:
        BlendplanError: it is of another type.
    """
    instance("requests", requests, Requests, "give what read_requests() returns")


def _lengths(method: object) -> str:
    has_file = isinstance(method, str) and ":" in method
    longest = LONGEST_NAME + (LONGEST_PATH if has_file else 0)
    return text("lengths", method, "give the name of a method", longest=longest)
