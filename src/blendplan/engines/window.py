"""`Window`: requests in a fixed order, for an engine that no policy is asked in."""

from collections import deque

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
        self._out = 0
        self._runs_alone = False

    def next(self, left: int = 0) -> list[int]:
        """Rows to send now.

        Args:
            left: requests that have left the engine, or need not be sent, since the last call.
        """
        self._out -= left
        if self._alone or self._runs_alone:
            rows = [] if self._out or not self._alone else [self._alone.popleft()]
            self._runs_alone = bool(rows or self._out)
        if not self._runs_alone:
            count = min(len(self._rest), self._size - self._out)
            rows = [self._rest.popleft() for _ in range(count)]
        self._out += len(rows)
        return rows

    def stop(self) -> None:
        """Send nothing more."""
        self._alone.clear()
        self._rest.clear()
