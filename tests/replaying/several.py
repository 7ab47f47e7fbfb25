"""Runs on several simulated engines in this process, which may be late, or die."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blendplan.engines.launch import launch_of
from blendplan.engines.protocol import (
    Engine,
    EngineDiedError,
    EngineRequest,
    Move,
    Report,
    Session,
)
from blendplan.engines.registry import ENGINES
from blendplan.engines.simulated import SimulatedEngine
from blendplan.planfile.plan import Plan
from blendplan.planfile.rerun import machine_of, workload_of
from blendplan.planfile.shared import shared_plans
from blendplan.replaying.fleet import Cast, Event, LocalFleet, Turn
from blendplan.replaying.job import job_of_plan
from blendplan.replaying.run import Replayed, run_job


def simulated_start(plan: Plan) -> Callable[[int, Session], SimulatedEngine]:
    """Starts simulated engines of a plan's replicas, more of them than it has where asked to."""
    plans = shared_plans(plan)
    workload, target = workload_of(plans[0]), machine_of(plans[0])

    def start(replica: int, session: Session) -> SimulatedEngine:
        return SimulatedEngine(
            plans[replica % len(plans)],
            session,
            workload,
            target.limits,
            target.table,
            layout=target.layout,
            max_model_len=target.max_model_len,
        )

    return start


def replay_several(
    plan: Plan,
    replicas: int,
    output: Path | None = None,
    *,
    at_first: int | None = None,
    start: Callable[[int, Session], Engine] | None = None,
    fleet: Callable[[Callable[[int, Session], Engine]], LocalFleet] = LocalFleet,
    engine: str = "sim",
    **options: Any,
) -> Replayed:
    """Replay a plan on several engines in this process."""
    kind = ENGINES.get("sim")
    launch = launch_of(
        plan, str(plan.metadata["model"]), {}, pdmux=False, log_steps=False, output=None
    )
    begin = start or simulated_start(plan)
    cast = Cast(lambda: fleet(begin), replicas, at_first or replicas)
    return run_job(job_of_plan(plan, kind), engine, output, launch, cast=cast, **options)


class StrictEngine:
    """An engine that is sent nothing twice, and from which nothing is taken that it was sent.

    Args:
        engine: the real one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sent: set[int] = set()
        self.capacity = engine.capacity

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        rows = [request.row for request in requests]
        assert len({*rows, *self._sent}) == len(rows) + len(self._sent)
        self._sent.update(rows)
        report = self._engine.serve(requests)
        self._sent.difference_update(answer.row for answer in report.answers)
        return report

    def pass_over(self, rows: Sequence[int]) -> None:
        self._engine.pass_over(rows)

    def move(self, move: Move) -> None:
        assert self._sent.isdisjoint(move.rows)
        self._engine.move(move)

    def stop(self) -> None:
        self._engine.stop()

    def close(self) -> None:
        self._engine.close()


class LateFleet(LocalFleet):
    """Engines whose reports are heard late and in any order, as over a network, and that die.

    One of them is heard of seldom: now this one, now that.

    Args:
        start: starts them.
        rng: says which report is heard next, and who dies.
        deaths: how many of them die, at any moment.
        lives: share of the turns that an engine survives.
    """

    def __init__(
        self,
        start: Callable[[int, Session], Engine],
        rng: np.random.Generator,
        deaths: int = 0,
        lives: float = 0.98,
    ) -> None:
        super().__init__(start)
        self._rng = rng
        self._deaths = deaths
        self._lives = lives
        self._unheard: dict[int, Event] = {}
        self._seldom = 0

    def begin_turn(self, replica: int, turn: Turn) -> None:
        super().begin_turn(replica, turn)
        event = LocalFleet.wait(self) if not self._starting else None
        if event is not None:
            self._unheard[event.replica] = self._or_dead(event)

    def wait(self) -> Event | None:
        if self._starting and (not self._unheard or self._rng.random() < 0.5):
            return super().wait()
        while self._turns and not self._starting:
            event = super().wait()
            assert event is not None
            self._unheard[event.replica] = self._or_dead(event)
        if not self._unheard:
            return super().wait()
        if self._rng.random() < 0.2:
            return None
        if self._rng.random() < 0.02:
            self._seldom = int(self._rng.integers(len(self._engines)))
        late = sorted(self._unheard)
        chances = np.array([0.02 if replica == self._seldom else 1.0 for replica in late])
        return self._unheard.pop(int(self._rng.choice(late, p=chances / chances.sum())))

    def start(self, replica: int, session: Session) -> None:
        self._unheard.pop(replica, None)
        super().start(replica, session)

    def _or_dead(self, event: Event) -> Event:
        if isinstance(event.what, Report) and self._deaths and self._rng.random() > self._lives:
            self._deaths -= 1
            return event._replace(what=EngineDiedError("it was killed"))
        return event
