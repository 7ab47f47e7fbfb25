"""`RayFleet`: the engines of a run as actors of a Ray cluster."""

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from blendplan.engines.protocol import Capacity, EngineDiedError, Session
from blendplan.errors import BlendplanError
from blendplan.printable import printable
from blendplan.replaying.cluster.actor import Outcome, Part, Replica
from blendplan.replaying.fleet import Event, Turn

# Seconds after which the loop is asked what has changed, though nothing has happened.
_WAIT_S = 0.5
# An engine may not come up while what is left of one before it still holds the GPU, and an actor
# may die before it has one.
_TRIES, _PAUSE_S = 8, 2.0
_LONGEST = 300
# Seconds that engines have to free what they hold at the end.
_CLOSE_S = 30.0


@dataclass
class _Seat:
    """One replica: its actor, and what is asked of it.

    Attributes:
        part: what its engine is started with.
        actor: None until there is one.
        session: with which its engine was asked for last.
        asked_s: when the actor was asked for; real time.
        placed: whether the actor has a machine.
        has_started: whether an engine of it ever came up.
        tries: starts that failed in a row.
        retry_s: when to try again; None for not at all.
        clock_s: of its engine; None where that lives in real time, and before it is known.
        held: a turn that waits for others to catch up.
    """

    part: Part
    actor: Any = None
    session: Session | None = None
    asked_s: float = 0.0
    placed: bool = False
    has_started: bool = False
    tries: int = 0
    retry_s: float | None = None
    clock_s: float | None = None
    held: Turn | None = None


class RayFleet:
    """Engines as actors.

    An actor that dies, with its node or without, is an engine that died: another actor is asked
    for, and Ray places it where there is room. Calls of an actor that is gone are forgotten, so
    nothing that it might still answer counts.

    Args:
        table: of the plan.
        parts: one for each replica.
        options: of an actor: what it needs of a node.
        patience_s: see `Cluster`.
        apart_s: how far the clocks of simulated engines may be apart; 0 for one step at a time.
        remark: called with a line on anything that the user should know.
    """

    def __init__(
        self,
        table: pa.Table,
        parts: list[Part],
        options: dict[str, Any],
        *,
        patience_s: float,
        apart_s: float,
        remark: Callable[[str], None],
    ) -> None:
        self._table = ray.put(table)
        self._make = ray.remote(Replica).options(
            max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **options
        )
        self._seats = [_Seat(part) for part in parts]
        self._patience_s = patience_s
        self._apart_s = apart_s
        self._remark = remark
        self._calls: dict[Any, tuple[int, str]] = {}
        self._events: deque[Event] = deque()

    def start(self, replica: int, session: Session) -> None:
        """Begin to start an engine, in the replica's actor or in another one."""
        seat = self._seats[replica]
        seat.session = session
        seat.held = seat.retry_s = None
        seat.clock_s = None
        self._ask(replica)

    def begin_turn(self, replica: int, turn: Turn) -> None:
        """Begin a turn, when the clocks of others are not too far behind."""
        seat = self._seats[replica]
        if turn.moves and seat.clock_s is not None:
            seat.clock_s = max(seat.clock_s, *(move.clock_s for move in turn.moves))
        seat.held = turn

    def absent(self) -> Collection[int]:
        """Replicas for which no machine was found for a while."""
        now = time.monotonic()
        return [
            number
            for number, seat in enumerate(self._seats)
            if not seat.placed and now - seat.asked_s > self._patience_s
        ]

    def wait(self) -> Event | None:
        """What happens next."""
        if not self._events:
            self._try_again()
            self._release()
            self._collect()
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Stop all engines, and give the actors' room back."""
        actors = [seat.actor for seat in self._seats if seat.actor is not None]
        closing = [seat.actor.close.remote() for seat in self._seats if seat.placed]
        with suppress(RayError):
            ray.wait(closing, num_returns=max(1, len(closing)), timeout=_CLOSE_S) if closing else 0
        for actor in actors:
            with suppress(RayError):
                ray.kill(actor)
        self._calls.clear()

    def _ask(self, replica: int) -> None:
        """Have an engine started for the session at hand."""
        seat = self._seats[replica]
        if seat.actor is None:
            seat.actor = self._make.remote()
            seat.asked_s, seat.placed = time.monotonic(), False
            self._calls[seat.actor.here.remote()] = replica, "place"
        self._calls[seat.actor.start.remote(self._table, seat.part, seat.session)] = (
            replica,
            "start",
        )

    def _try_again(self) -> None:
        now = time.monotonic()
        for number, seat in enumerate(self._seats):
            if seat.retry_s is not None and seat.retry_s <= now:
                seat.retry_s = None
                self._ask(number)

    def _release(self) -> None:
        """Begin the turns of engines whose clocks are not too far ahead of others."""
        in_turn = {replica for replica, what in self._calls.values() if what == "turn"}
        clocks = [
            (seat.clock_s, number)
            for number, seat in enumerate(self._seats)
            if seat.clock_s is not None and (seat.held is not None or number in in_turn)
        ]
        latest_s, furthest_behind = min(clocks, default=(0.0, -1))
        for number, seat in enumerate(self._seats):
            if seat.held is None:
                continue
            until_s = -math.inf
            if seat.clock_s is not None:
                if self._apart_s > 0.0:
                    until_s = latest_s + self._apart_s
                    if seat.clock_s > until_s:
                        continue
                elif number != furthest_behind or in_turn:
                    continue
            turn, seat.held = seat.held, None
            self._calls[seat.actor.turn.remote(turn, until_s)] = number, "turn"

    def _collect(self) -> None:
        """Take up all calls that have ended."""
        if not self._calls:
            time.sleep(_WAIT_S)
            return
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=_WAIT_S)
        if ready and len(self._calls) > 1:
            ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for call in ready:
            if call in self._calls:
                replica, what = self._calls.pop(call)
                self._take(replica, what, call)

    def _take(self, replica: int, what: str, call: Any) -> None:
        seat = self._seats[replica]
        try:
            outcome: Outcome | str = ray.get(call)
        except RayTaskError as error:
            cause = f"{type(error.cause).__name__}: {error.cause}"
            raise BlendplanError(f"replica {replica} failed: {printable(cause)}") from error
        except RayActorError as error:
            self._forget(replica)
            self._died(replica, what, EngineDiedError(_obituary(error)), of_engine=False)
            return
        except RayError as error:
            self._forget(replica)
            self._died(replica, what, EngineDiedError(_line_of(error)), of_engine=False)
            return
        if isinstance(outcome, str):
            seat.placed = True
        elif isinstance(outcome, BlendplanError):
            raise BlendplanError(f"replica {replica}: {outcome}")
        elif isinstance(outcome, EngineDiedError):
            self._died(replica, what, outcome)
        else:
            if isinstance(outcome, Capacity):
                seat.has_started, seat.tries = True, 0
            elif outcome.clock_s is not None:
                seat.clock_s = outcome.clock_s
            self._events.append(Event(replica, outcome))

    def _died(
        self, replica: int, what: str, death: EngineDiedError, *, of_engine: bool = True
    ) -> None:
        """An engine is gone, or its actor; one that has not come up may be tried again."""
        seat = self._seats[replica]
        may_again = seat.has_started or not of_engine
        if what != "turn" and may_again and seat.tries < _TRIES:
            seat.retry_s = time.monotonic() + (_PAUSE_S if seat.tries else 0.0)
            seat.tries += 1
            return
        self._events.append(Event(replica, death))

    def _forget(self, replica: int) -> None:
        """The actor of a replica is gone, and so are its calls."""
        seat = self._seats[replica]
        if seat.actor is not None:
            with suppress(RayError):
                ray.kill(seat.actor)
        seat.actor, seat.placed, seat.held = None, False, None
        self._calls = {call: of for call, of in self._calls.items() if of[0] != replica}


def _obituary(error: RayActorError) -> str:
    """Why an actor is gone.

    Raises:
        BlendplanError: no actor can run there.
    """
    if "ModuleNotFoundError" in str(error) or "No module named" in str(error):
        raise BlendplanError(
            "a node of the Ray cluster has no blendplan of this version in the Python that Ray runs"
            f" there ({_line_of(error, 'No module named')}); install it on all nodes"
        ) from None
    if "node" in str(error).lower() and "unexpected" not in str(error).lower():
        return f"its node is gone ({_line_of(error)})"
    return f"its actor is gone ({_line_of(error)})"


def _line_of(error: Exception, about: str = "") -> str:
    """A line of what Ray says, the last one that speaks of something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = [line for line in lines if about in line] or lines or [type(error).__name__]
    return printable(found[-1] if about else found[0])[:_LONGEST]
