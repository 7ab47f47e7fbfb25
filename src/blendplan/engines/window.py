"""`Window`: requests in a fixed order, for an engine that no policy is asked in."""

from collections import deque
from collections.abc import Iterable

from blendplan.engines.protocol import Session


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

    def stop(self) -> None:
        """Send nothing more."""
        self._alone.clear()
        self._rest.clear()
