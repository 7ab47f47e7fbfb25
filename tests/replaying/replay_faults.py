"""Simulated engines that die or refuse, to see that a run survives them."""

import os
import signal
from collections.abc import Callable, Sequence
from functools import partial

from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineDiedError, EngineRequest, Refused, StepReport
from blendplan.engines.simulated import SimulatedEngine
from blendplan.engines.simulated_kind import simulated_engine
from blendplan.planfile.plan import Plan


class FaultyEngine:
    """The simulated engine with a fault.

    Args:
        engine: the sound engine.
        poison: rows that end it as soon as they are submitted.
        steps: steps that it takes before it ends anyhow; None for any number.
        end: how it ends.
        refusals: how often it still refuses a row, by row; shared by its successors.
    """

    def __init__(
        self,
        engine: SimulatedEngine,
        *,
        poison: frozenset[int] = frozenset(),
        steps: int | None = None,
        end: Callable[[], None],
        refusals: dict[int, int] | None = None,
    ) -> None:
        self._engine = engine
        self._poison = poison
        self._steps = steps
        self._end = end
        self._refusals = {} if refusals is None else refusals
        self.capacity = engine.capacity

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        if self._steps is not None:
            self._steps -= 1
        if self._steps == -1 or any(request.row in self._poison for request in requests):
            self._end()
        refused = [request.row for request in requests if self._refusals.get(request.row, 0) > 0]
        taken = [request for request in requests if request.row not in refused]
        report = self._engine.step(taken, prefill_tokens)
        for row in refused:
            self._refusals[row] -= 1
            report.refused.append(Refused(row, "engine_error", "not today", retry=True))
        return report

    def close(self) -> None:
        self._engine.close()


def raise_death() -> None:
    """End as the parent of a dead engine process sees it."""
    raise EngineDiedError("it died")


def kill_yourself() -> None:
    """End as a process that runs out of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def start_faulty(plan: Plan, poison: frozenset[int]) -> FaultyEngine:
    """A faulty engine for a process of its own, which prints a word as engines do."""
    print("hello", flush=True)
    return FaultyEngine(simulated_engine(plan), poison=poison, end=kill_yourself)


def faulty_process(poison: frozenset[int], plan: Plan, **_: bool) -> EngineProcess:
    """That process."""
    return EngineProcess(partial(start_faulty, plan, poison))
