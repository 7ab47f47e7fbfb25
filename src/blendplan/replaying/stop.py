"""`Stop`: what Ctrl-C means to a run."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class Stop:
    """Within its block, a first SIGINT asks the run to end and a second one ends it.

    SIGTERM ends the run at once: whoever sends it does not wait long. Off the main thread, where
    no handler can be set, signals keep their meaning.

    Args:
        announce: called when the run is asked to end.
    """

    def __init__(self, announce: Callable[[], None]) -> None:
        self.asked = False
        self._announce = announce
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {
                signal.SIGINT: signal.signal(signal.SIGINT, self._interrupt),
                signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler),
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._announce()
