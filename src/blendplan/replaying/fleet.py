"""`Fleet`: the engines of a run, each of which is given one turn after the other.

The loop begins turns and waits for whatever happens first. On one machine that is a call of the
engine; on a cluster it is a call of an actor, many of which are under way at once.
"""

from collections import deque
from collections.abc import Callable, Collection
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
        moves: which requests are no longer its own, and which are from now on.
        stop: whether it begins nothing more.
        requests: that it asked for.
    """

    passed: list[int] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    stop: bool = False
    requests: list[EngineRequest] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.passed or self.moves or self.stop or self.requests)

    @property
    def moved(self) -> set[int]:
        """Rows of all moves."""
        return set().union(*(move.rows for move in self.moves))

    def add_move(self, move: Move) -> None:
        """Move these too, after those before; a request may come and go and come again."""
        if not self.moves or not self.moves[-1].rows.isdisjoint(move.rows):
            self.moves.append(move)
        else:
            self.moves[-1] = self.moves[-1].and_also(move)


def take_turn(engine: Engine, turn: Turn) -> Report:
    """Tell an engine what there is, and let it serve.

    Raises:
        EngineDiedError: it is gone.
    """
    if turn.passed:
        engine.pass_over(turn.passed)
    for move in turn.moves:
        engine.move(move)
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

    def absent(self) -> Collection[int]:
        """Replicas without a machine, for which none will be there soon."""

    def close(self) -> None:
        """Stop all engines and free what they hold."""


@dataclass(frozen=True)
class Cast:
    """The engines of a run.

    Attributes:
        fleet: makes them, when the run begins.
        most: how many there may be.
        at_first: how many are expected at the beginning.
    """

    fleet: Callable[[], Fleet]
    most: int = 1
    at_first: int = 1


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
        taken_s = max((move.clock_s for move in turn.moves), default=0.0)
        self._clock_s[replica] = max(self._clock_s[replica], taken_s)

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

    def absent(self) -> Collection[int]:
        """None is: this machine is there."""
        return ()

    def close(self) -> None:
        """Stop all engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
