"""`Course`: how far a run was at each of a few hundred moments."""

from collections.abc import Callable
from dataclasses import dataclass, field

from blendplan.replaying.tally import Tally

MOST_POINTS = 512


@dataclass
class Course:
    """The requests that a session has finished over its time, in at most `MOST_POINTS` points.

    Attributes:
        then: called with every state of the run.
        end_s: seconds since the session's first request, rising.
        done: requests that had an answer or an error line by then.
    """

    then: Callable[[Tally], None] = lambda tally: None
    end_s: list[float] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    _every: int = 1
    _calls: int = 0

    def note(self, tally: Tally) -> None:
        """Called after each step; keeps every so many, so that a long run takes no more room."""
        self.then(tally)
        self._calls += 1
        if tally.left and self._calls % self._every:
            return
        if self.end_s and tally.elapsed_s <= self.end_s[-1]:
            self.end_s.pop()
            self.done.pop()
        self.end_s.append(tally.elapsed_s)
        self.done.append(tally.finished + tally.failed)
        if len(self.end_s) > MOST_POINTS:
            # The last of each two, so that the end stays.
            del self.end_s[-2::-2], self.done[-2::-2]
            self._every *= 2
