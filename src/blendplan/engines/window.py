"""`Window`: requests in a fixed order, for an engine that no policy is asked in."""

from collections import deque
from collections.abc import Iterable

from blendplan.engines.protocol import Move, Session


class Window:
    """What to send next, so that always about as many requests are on the engine.

    Args:
        session: whose requests are sent in their order, those to be run alone one by one.
        size: how many are on the engine at once.
    """

    def __init__(self, session: Session, size: int) -> None:
        apart = set(session.alone) | set(session.first)
        rest = (row for row in session.requests.tolist() if row not in apart)
        self._alone = deque(session.alone)
        self._rest = deque([*session.first, *rest])
        self._size = size
        self._out: set[int] = set()
        self._runs_alone = False

    def done(self, rows: Iterable[int]) -> None:
        """These have left the engine, or will never come to it."""
        self._out.difference_update(rows)

    def next(self) -> list[int]:
        """Rows to send now."""
        if self._runs_alone and self._out:
            return []
        self._runs_alone = bool(self._alone)
        queue, size = (self._alone, 1) if self._alone else (self._rest, self._size)
        rows = [queue.popleft() for _ in range(min(len(queue), size - len(self._out)))]
        self._out.update(rows)
        return rows

    def move(self, move: Move) -> None:
        """Send other requests from now on; what has been sent stays."""
        given = set(move.give)
        self._out -= given
        self._rest = deque(row for row in self._rest if row not in given)
        self._alone = deque(row for row in self._alone if row not in given)
        apart = {*move.first, *move.alone}
        self._alone.extend(move.alone)
        self._rest.extendleft(reversed(move.first))
        self._rest.extend(row for row in move.take if row not in apart)

    def stop(self) -> None:
        """Send nothing more."""
        self._alone.clear()
        self._rest.clear()
