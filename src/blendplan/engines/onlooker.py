"""`Onlooker`: what an engine's own scheduler does with the requests of a plan."""

from collections.abc import Callable

from blendplan.engines.news import News
from blendplan.engines.prompt_check import PromptCheck
from blendplan.engines.protocol import Ended, Report
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan


class Onlooker(News):
    """Stands where a plan's policy would, and only tells what the scheduler did.

    So a baseline is the engine's own, and its steps, preemptions and cached tokens are counted as
    those of a run that follows its plan.

    Args:
        plan: whose requests are run; n rows.
        limits, tell: as of `News`.
    """

    def __init__(
        self, plan: Plan, limits: EngineLimits, tell: Callable[[Report], None] | None
    ) -> None:
        super().__init__(plan, limits, tell)
        self._prompts = PromptCheck(plan, self.remark)
        self._next_stranger = len(plan)
        self._running: set[int] = set()
        self._waiting: set[int] = set()

    def arrived(self, row: int, prompt_tokens: int | None = None) -> None:
        """A sequence of the plan is there; args as of `PlannedAdmission.arrived`."""
        with self._lock:
            self._waiting.add(row)
            if prompt_tokens is not None:
                self._prompts.compare(row, prompt_tokens)

    def stranger(self) -> int:
        """The row by which a request that the plan does not know is named from now on."""
        with self._lock:
            row = self._next_stranger
            self._next_stranger += 1
            self._waiting.add(row)
            return row

    def began(self, row: int) -> None:
        """A sequence was given room for the first time."""
        with self._lock:
            self._waiting.discard(row)
            self._running.add(row)
            if row < len(self._answer) and self._answer[row] == 0:
                self._report.began.append(row)

    def preempted(self, row: int) -> None:
        """A running sequence lost its KV cache and waits in the engine."""
        with self._lock:
            self._report.preemptions += 1

    def ended(self, ended: Ended, output_tokens: int) -> None:
        """A sequence left the engine, whatever the reason."""
        with self._lock:
            self._running.discard(ended.row)
            self._waiting.discard(ended.row)
            if ended.row < len(self._answer):
                self._report.ended.append(ended)

    def take_report(self) -> Report:
        """What is new since the last one."""
        with self._lock:
            report = super().take_report()
            report.idle = not self._running and not self._waiting
            return report
