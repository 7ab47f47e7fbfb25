"""`Fleet`: the engines of a run, each of which is given one turn after the other.

The loop begins turns and waits for whatever happens first. On one machine that is a call of the
engine; on a cluster it is a call of an actor, many of which are under way at once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from blendplan.engines.protocol import (
    Capacity,
    Engine,
    EngineDiedError,
    EngineRequest,
    Move,
    Report,
    Session,
)

StartEngine = Callable[[int, Session], Engine]


@dataclass
class Turn:
    """What an engine is told at once, in this order.

    Attributes:
        passed: rows, of first answers, that it waits for no longer.
        move: which requests are no longer its own, and which are from now on.
        stop: whether it begins nothing more.
        requests: that it asked for.
    """

    passed: list[int] = field(default_factory=list)
    move: Move | None = None
    stop: bool = False
    requests: list[EngineRequest] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.passed or self.move or self.stop or self.requests)

    def add_move(self, move: Move) -> None:
        """Move these too; one that comes and goes within a turn does neither."""
        if self.move is None:
            self.move = move
            return
        before = self.move
        gone, come = set(move.give), set(move.take)
        back = {row for row in before.give if row in come}
        self.move = Move(
            give=tuple(
                row
                for row in before.give + move.give
                if row not in back and row not in set(before.take)
            ),
            take=tuple(row for row in before.take + move.take if row not in gone | back),
            first=tuple(row for row in before.first + move.first if row not in gone),
            alone=tuple(row for row in before.alone + move.alone if row not in gone),
            clock_s=max(before.clock_s, move.clock_s),
        )


def take_turn(engine: Engine, turn: Turn) -> Report:
    """Tell an engine what there is, and let it serve.

    Raises:
        EngineDiedError: it is gone.
    """
    if turn.passed:
        engine.pass_over(turn.passed)
    if turn.move is not None:
        engine.move(turn.move)
    if turn.stop:
        engine.stop()
    return engine.serve(turn.requests)


class Event(NamedTuple):
    """What happened to a replica: its engine has started, reports, or is gone."""

    replica: int
    what: Capacity | Report | EngineDiedError


class Fleet(Protocol):
    """Engines by the number of their replica."""

    def start(self, replica: int, session: Session) -> None:
        """Begin to start an engine, another one after a death; `wait` tells how it went."""

    def begin_turn(self, replica: int, turn: Turn) -> None:
        """Begin a turn of an engine that has started and has none; `wait` tells its report."""

    def wait(self) -> Event | None:
        """What happens next; None where nothing has happened for a while, or nothing will.

        Raises:
            BlendplanError: an engine refuses to start.
        """

    def close(self) -> None:
        """Stop all engines and free what they hold."""


class LocalFleet:
    """Engines in this process, one turn after the other.

    Of several, the one whose own clock is furthest behind has the next turn. So on the clocks of
    simulated engines everything happens in the order of time.

    Args:
        start: starts the engine of a replica.
    """

    def __init__(self, start: StartEngine) -> None:
        self._start = start
        self._engines: dict[int, Engine] = {}
        self._clock_s: dict[int, float] = {}
        self._starting: deque[tuple[int, Session]] = deque()
        self._turns: dict[int, Turn] = {}

    def start(self, replica: int, session: Session) -> None:
        """Begin to start an engine."""
        self._turns.pop(replica, None)
        self._starting.append((replica, session))

    def begin_turn(self, replica: int, turn: Turn) -> None:
        """Begin a turn."""
        self._turns[replica] = turn
        if turn.move is not None:
            self._clock_s[replica] = max(self._clock_s[replica], turn.move.clock_s)

    def wait(self) -> Event | None:
        """The next start or turn."""
        if self._starting:
            return self._started(*self._starting.popleft())
        if not self._turns:
            return None
        replica = min(self._turns, key=lambda number: (self._clock_s[number], number))
        turn = self._turns.pop(replica)
        try:
            report = take_turn(self._engines[replica], turn)
        except EngineDiedError as death:
            return Event(replica, death)
        if report.clock_s is not None:
            self._clock_s[replica] = report.clock_s
        return Event(replica, report)

    def _started(self, replica: int, session: Session) -> Event:
        before = self._engines.pop(replica, None)
        if before is not None:
            before.close()
        try:
            engine = self._start(replica, session)
        except EngineDiedError as death:
            return Event(replica, death)
        self._engines[replica] = engine
        self._clock_s[replica] = session.clock_s
        return Event(replica, engine.capacity)

    def close(self) -> None:
        """Stop all engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
