"""`Replanning`: a run learns output lengths from its requests, and its policy goes over to them.

The simulated engine waits for it, so that it takes the planned steps. A real engine does not: what
is to be learned is learned in a thread of its own, while the policy goes on as it was.
"""

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.policy.known import PolicyInput
from blendplan.policy.live import LivePolicy
from blendplan.policy.progress import Progress
from blendplan.policy.reviser import Reviser

Generated = Callable[[], NDArray[np.int32]]


class Replanning:
    """What a session of a run learns.

    Whatever goes wrong in it, the run goes on under the policy that it has.

    Args:
        policy: of the run; goes over to what is learned.
        reviser: what learns.
        every_steps: steps between two looks at the run's progress.
        ended: output length of each row that has an answer by now, 0 of the others; the caller
            keeps it up to date; int32 [n].
        remark: called with a line when it cannot go on.
    """

    def __init__(
        self,
        policy: LivePolicy,
        reviser: Reviser,
        every_steps: int,
        ended: NDArray[np.int32],
        remark: Callable[[str], None],
    ) -> None:
        self._policy = policy
        self._reviser = reviser
        self._every_steps = every_steps
        self._ended = ended
        self._remark = remark
        self._steps = 0
        self._told_revisions = -1
        self._over = False
        self._thread: _Learning | None = None

    def news(self) -> dict[str, Any] | None:
        """What was learned so far, as JSON values; None where it is as the last time."""
        revisions = len(self._reviser.revisions)
        if revisions == self._told_revisions:
            return None
        self._told_revisions = revisions
        return self._reviser.as_dict()

    def regroup(self, known: PolicyInput, kept: NDArray[np.int64]) -> PolicyInput:
        """Go on for other requests of the policy; what is known of them by now.

        Args:
            known, kept: as of `Reviser.regroup`.
        """
        self._thread = None  # what it finds out is of the others
        return self._reviser.regroup(known, kept)

    def after_step(self, generated: Generated, *, waits: bool) -> bool:
        """Learn what there is to be learned after a step.

        Args:
            generated: output tokens of each row so far; int32 [n].
            waits: whether time stands still for the engine meanwhile.

        Returns:
            whether the policy has gone over to what was learned.
        """
        self._steps += 1
        if self._over:
            return False
        try:
            if self._thread is not None:
                if self._thread.is_alive():
                    return False
                learning, self._thread = self._thread, None
                return self._go_over(learning.result(), generated)
            if self._steps % self._every_steps == 0:
                return self._look(generated, waits)
        # No error in what is only learned may cost answers.
        except Exception as error:
            self._over = True
            self._remark(
                f"cannot learn from the requests that have ended ({type(error).__name__}: "
                f"{error}); the run goes on as it was planned"
            )
        return False

    def _look(self, generated: Generated, waits: bool) -> bool:
        progress = self._progress(generated)
        if self._reviser.over:
            self._over = True
        elif self._reviser.due(progress):
            if waits:
                return self._go_over(self._reviser.learn(progress), generated)
            self._thread = _Learning(lambda: self._reviser.learn(progress))
            self._thread.start()
        return False

    def _go_over(self, known: PolicyInput | None, generated: Generated) -> bool:
        if known is None or self._policy.done:
            return False
        self._policy.revise(known, self._progress(generated))
        return True

    def _progress(self, generated: Generated) -> Progress:
        so_far, ended = generated(), self._policy.ended
        # Those without an answer failed: nobody knows how long they would have been.
        so_far[ended] = self._ended[ended]
        return self._policy.progress(so_far)


class _Learning(Thread):
    """Works something out; the process does not wait for it at its end."""

    def __init__(self, work: Callable[[], PolicyInput | None]) -> None:
        super().__init__(name="blendplan-learning", daemon=True)
        self._work = work
        self._found: PolicyInput | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._found = self._work()
        except Exception as error:
            self._error = error

    def result(self) -> PolicyInput | None:
        """What was worked out, or raises what went wrong."""
        if self._error is not None:
            raise self._error
        return self._found
