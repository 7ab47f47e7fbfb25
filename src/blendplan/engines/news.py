"""`News`: what an engine's scheduler has to report, collected until somebody takes it."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from blendplan.engines.protocol import Report, StepWork
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan

_REPORT_EVERY_S = 0.1


class News:
    """Collects a report on sequences of a plan; safe to be called from several threads.

    Args:
        plan: for one replica; n rows.
        limits: within which the engine schedules.
        tell: called with a report whenever there is news, from within the calls of the scheduler;
            None where nobody listens.
    """

    def __init__(
        self, plan: Plan, limits: EngineLimits, tell: Callable[[Report], None] | None
    ) -> None:
        self.plan = plan
        self.limits = limits
        self._tell = tell
        self._lock = threading.RLock()
        self._report = Report()
        self._told_s = 0.0
        self._answer = plan.column("answer")
        self._firsts = np.flatnonzero(self._answer == 0)

    def rows_of(self, first: int) -> range:
        """Rows of all answers of the request with this first row."""
        if len(self._firsts) == len(self._answer):
            return range(first, first + 1)
        place = int(np.searchsorted(self._firsts, first, side="right"))
        end = self._firsts[place] if place < len(self._firsts) else len(self._answer)
        return range(first, int(end))

    def steady(self) -> AbstractContextManager[object]:
        """A block in which other threads change nothing: what they have to say waits."""
        return self._lock

    def did_step(self, steps: int, clock_s: float | None = None) -> None:
        """So many steps have computed something."""
        with self._lock:
            self._report.steps += steps
            self._report.clock_s = clock_s

    def worked(self, work: StepWork) -> None:
        """What a step computed, for the log."""
        with self._lock:
            self._report.work.append(work)

    def remark(self, line: str) -> None:
        """A line for the user."""
        with self._lock:
            self._report.remarks.append(line)

    def flush(self) -> None:
        """Report what is new, where anybody listens and it does not come too often."""
        with self._lock:
            if self._tell is None:
                return
            report, now = self._report, time.monotonic()
            news = bool(report.wanted or report.began or report.ended or report.remarks)
            news |= report.preemptions > 0 or self._must_tell()
            if news or (report.steps and now - self._told_s > _REPORT_EVERY_S):
                self._told_s = now
                self._tell(self.take_report())

    def take_report(self) -> Report:
        """What is new since the last one."""
        with self._lock:
            report, self._report = self._report, Report()
            return report

    def _must_tell(self) -> bool:
        """Whether somebody waits for a report, whatever is in it."""
        return False
