"""`Asking`: which requests a policy inside an engine has asked for, ahead of their turn."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from blendplan.policy.live import LivePolicy

# Rows of each queue of the policy that are sent ahead, at least.
_AHEAD = 256
# Of a plan that several engines share, no more than one part in so many, nor less than so many.
_PARTS_AHEAD, _LEAST_AHEAD = 32, 8


class Asking:
    """What was asked for, and what of it is still to come.

    Args:
        answer: which answer of its request each row is; int32 [n].
        max_num_seqs: sequences that the engine runs at once.
        shared: whether other engines may take what has not been asked for.

    Attributes:
        missing: rows, of first answers, that were asked for and are not there.
    """

    def __init__(self, answer: NDArray[np.int32], max_num_seqs: int, *, shared: bool) -> None:
        self.missing: set[int] = set()
        self._answer = answer
        self._asked = np.zeros(len(answer), dtype=bool)
        self._most = max(_AHEAD, max_num_seqs)
        self._shared = shared
        self._ahead = self._most
        self._begun = 0

    def begun(self, rows: int) -> None:
        """So many have begun, or will never come."""
        self._begun += rows

    @property
    def due(self) -> bool:
        """Whether so many have begun since the last time that more are to be asked for."""
        return 4 * self._begun >= self._ahead

    def forget(self, firsts: Iterable[int]) -> None:
        """These are another engine's now, or were and come again."""
        self._asked[list(firsts)] = False

    def ahead(self, policy: LivePolicy) -> list[int]:
        """What to ask for so that the policy's next requests are there; rows of first answers."""
        self._begun = 0
        self._ahead = self._most
        if self._shared:
            # What has been sent cannot go to another engine.
            part = policy.waiting // _PARTS_AHEAD
            self._ahead = min(self._most, max(_LEAST_AHEAD, part))
        return self.ask(policy.upcoming(self._ahead).tolist())

    def ask(self, rows: Iterable[int]) -> list[int]:
        """Of the requests of these rows, those that have not been asked for; first answers."""
        wanted = []
        for row in rows:
            first = row - int(self._answer[row])
            if not self._asked[first]:
                self._asked[first] = True
                self.missing.add(first)
                wanted.append(first)
        return wanted
