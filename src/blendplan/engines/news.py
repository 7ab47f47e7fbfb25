"""`News`: what an engine's scheduler has to report, collected until somebody takes it."""

import threading

from blendplan.engines.protocol import Report, StepWork


class News:
    """Collects a report; safe to be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._report = Report()

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
