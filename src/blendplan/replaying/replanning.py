"""`Replanning`: a run learns output lengths from its requests, and its policy goes over to them.

The simulated engine waits for it, so that it takes the planned steps. A real engine does not: what
is to be learned is learned in a thread of its own, while the policy goes on as it was.
"""

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.launch import Remark
from blendplan.engines.protocol import TellsGenerated
from blendplan.policy.known import PolicyInput
from blendplan.policy.live import LivePolicy
from blendplan.policy.progress import Progress
from blendplan.policy.reviser import Reviser


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
        remark: Remark,
    ) -> None:
        self._policy = policy
        self._reviser = reviser
        self._every_steps = every_steps
        self._ended = ended
        self._remark = remark
        self._steps = 0
        self._over = False
        self._thread: _Learning | None = None

    def as_dict(self) -> dict[str, Any]:
        """What was learned, as JSON values; see `Reviser`."""
        return self._reviser.as_dict()

    def after_step(self, engine: object, *, waits: bool) -> None:
        """Learn what there is to be learned after a step.

        Args:
            engine: that took it.
            waits: whether time stands still for it meanwhile.
        """
        self._steps += 1
        if self._over:
            return
        try:
            if self._thread is not None:
                if self._thread.is_alive():
                    return
                learning, self._thread = self._thread, None
                self._go_over(learning.result(), engine)
            elif self._steps % self._every_steps == 0:
                self._look(engine, waits)
        # No error in what is only learned may cost answers.
        except Exception as error:
            self._over = True
            self._remark(
                f"cannot learn from the requests that have ended ({type(error).__name__}: "
                f"{error}); the run goes on as it was planned"
            )

    def _look(self, engine: object, waits: bool) -> None:
        progress = self._progress(engine)
        if self._reviser.over:
            self._over = True
        elif self._reviser.due(progress):
            if waits:
                self._go_over(self._reviser.learn(progress), engine)
            else:
                self._thread = _Learning(lambda: self._reviser.learn(progress))
                self._thread.start()

    def _go_over(self, known: PolicyInput | None, engine: object) -> None:
        if known is not None and not self._policy.done:
            self._policy.revise(known, self._progress(engine))

    def _progress(self, engine: object) -> Progress:
        if isinstance(engine, TellsGenerated):
            return self._policy.progress(engine.generated_tokens())
        generated = self._policy.elapsed_steps()
        left = self._policy.ended
        # Those without an answer failed: nobody knows how long they would have been.
        generated[left] = self._ended[left]
        return self._policy.progress(generated)


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
