"""Engines that die or refuse, to see that a run survives them."""

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from blendplan.engines.front import REQUEST_ID, Front, StartFront
from blendplan.engines.kind import EngineKind
from blendplan.engines.link import Admission, admission_of
from blendplan.engines.options import SchedulerOptions
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import (
    Answer,
    Capacity,
    Ended,
    EngineDiedError,
    EngineRequest,
    Launch,
    Move,
    Report,
    Session,
)
from blendplan.engines.simulated import SimulatedEngine
from blendplan.engines.simulated_kind import simulated_engine
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan


class FaultyEngine:
    """The simulated engine with a fault.

    Args:
        engine: the sound engine.
        poison: rows that end it when they have begun.
        turns: how often it reports before it ends anyhow; None for any number.
        end: how it ends.
        refusals: how often it still refuses a row, by row; shared by its successors.
    """

    def __init__(
        self,
        engine: SimulatedEngine,
        *,
        poison: frozenset[int] = frozenset(),
        turns: int | None = None,
        end: Callable[[], None],
        refusals: dict[int, int] | None = None,
    ) -> None:
        self._engine = engine
        self._poison = poison
        self._turns = turns
        self._end = end
        self._refusals = {} if refusals is None else refusals
        self.capacity = engine.capacity

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        if self._turns is not None:
            self._turns -= 1
        if self._turns == -1:
            self._end()
        refused = [request.row for request in requests if self._refusals.get(request.row, 0) > 0]
        report = self._engine.serve([one for one in requests if one.row not in refused])
        if not self._poison.isdisjoint(report.began):
            report.answers = []
            self._turns = 0
        for row in refused:
            self._refusals[row] -= 1
            report.answers.append(Answer(row, 503, b'{"error":"not today"}'))
        return report

    def pass_over(self, rows: Sequence[int]) -> None:
        self._engine.pass_over(rows)

    def move(self, move: Move) -> None:
        self._engine.move(move)

    def stop(self) -> None:
        self._engine.stop()

    def close(self) -> None:
        self._engine.close()


def raise_death() -> None:
    """End as the parent of a dead engine process sees it."""
    raise EngineDiedError("it died")


def faulty(plan: Plan, session: Session, **fault: Any) -> FaultyEngine:
    """The simulated engine of a plan with a fault."""
    return FaultyEngine(simulated_engine(plan, session), **{"end": raise_death, **fault})


class ToyServer:
    """A server with a scheduler that asks a plan's policy, as real ones are built.

    Every sequence runs for three steps, eight at a time.

    Args:
        admission: the policy, or an onlooker, with whom requests run as they come; None for
            nobody.
        poison: rows that kill its process when they have begun.
        step_s: seconds that a step takes.
    """

    def __init__(self, admission: Admission | None, poison: frozenset[int], step_s: float) -> None:
        self._admission = admission
        self._queue: deque[int] = deque()
        self._poison = poison
        self._step_s = step_s
        self._left: dict[int, int] = {}
        self._done: dict[int, asyncio.Future[None]] = {}

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        named = dict(scope["headers"])[b"x-request-id"].decode()
        row = int(named.removeprefix(REQUEST_ID.format(row="")))
        body = json.loads((await receive())["body"])
        answers = int(body.get("n", 1))
        if self._admission is not None:
            for one in range(row, row + answers):
                self._done[one] = asyncio.get_running_loop().create_future()
                self._queue.append(one)
                self._admission.arrived(one)
            await asyncio.gather(*(self._done[one] for one in range(row, row + answers)))
        usage = {"prompt_tokens": len(body.get("prompt", "")), "completion_tokens": 3 * answers}
        text = json.dumps({"echo": body.get("prompt"), "usage": usage}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def schedule(self) -> None:
        """Step until cancelled."""
        while True:
            admission, lengths = self._admission, self._lengths
            assert admission is not None
            if isinstance(admission, PlannedAdmission):
                admission.begin_step(float(len(self._left)), lengths.copy, waits=False)
            while len(self._left) < 8 and (row := self._next_row(admission)) >= 0:
                admission.began(row)
                self._left[row] = 3
            admission.did_step(bool(self._left))
            admission.flush()
            if not self._poison.isdisjoint(self._left):
                await asyncio.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
            for row in list(self._left):
                self._left[row] -= 1
                if not self._left[row]:
                    del self._left[row]
                    lengths[row] = 3
                    admission.ended(Ended(row, 0, 0), 3)
                    self._done.pop(row).set_result(None)
            admission.flush()
            await asyncio.sleep(self._step_s)

    def follow(self, admission: Admission) -> None:
        """Ask this from now on."""
        self._admission = admission
        self._lengths = np.zeros(len(admission.plan), dtype=np.int32)
        self._queue.clear()

    def _next_row(self, admission: Admission) -> int:
        if isinstance(admission, PlannedAdmission):
            return admission.next_row()
        return self._queue.popleft() if self._queue else -1


@asynccontextmanager
async def toy_front(
    limits: EngineLimits, poison: frozenset[int], step_s: float, folder: Path | None
) -> AsyncIterator[Front]:
    """A toy server, which prints a word as engines do."""
    print("hello", flush=True)
    server = ToyServer(None, poison, step_s)
    if folder is not None:
        server.follow(admission_of(SchedulerOptions(folder), limits, server.follow))
    stepping = None if folder is None else asyncio.create_task(server.schedule())
    yield Front(server.app, Capacity(limits, limits.kv_tokens, [], "toy 1"), lambda: True)
    if stepping is not None:
        stepping.cancel()


def _toy_front(
    limits: EngineLimits, poison: frozenset[int], step_s: float, folder: Path | None
) -> StartFront:
    return partial(toy_front, limits, poison, step_s, folder)


def toy_process(
    plan: Plan | None,
    launch: Launch,
    session: Session,
    *,
    poison: frozenset[int] = frozenset(),
    step_s: float = 0.001,
) -> EngineProcess:
    """A toy server in a process of its own, as `EngineKind.start`."""
    limits = launch.limits or EngineLimits(kv_tokens=100_000)
    return EngineProcess(partial(_toy_front, limits, poison, step_s), plan, session, log=launch.log)


# A row of the registry for tests to put there; with another start where they need one.
TOY_ROW = {"toy": f"{__name__}:TOY"}
TOY = EngineKind("Toy", "answers with the prompt", toy_process, loads_model=False, reusable=True)
