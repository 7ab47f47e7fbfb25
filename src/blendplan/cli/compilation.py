"""Says when numeric kernels are compiled, which happens on the first run only, and for how long.

Each command compiles what it is the first to need. What takes less than a second is not worth a
line.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

NOTICE_AFTER_S = 1.0
NOTICE = "compiling numeric kernels (first run only, cached)"


class CompilationClock:
    """Time spent compiling, in seconds, as numba reports it; kernels read from the cache are free.

    A listener of numba that does not inherit from its class, so as not to import it.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.seconds = 0.0
        self._notice = notice
        self._noticed = False
        self._depth = 0
        self._start = 0.0

    def notify(self, event: Any) -> None:
        """Called by numba at the start and at the end of each compilation, also of nested ones."""
        if event.is_start:
            if self._depth == 0:
                self._start = perf_counter()
            self._depth += 1
            if not self._noticed and self._seconds_so_far() >= NOTICE_AFTER_S:
                self._noticed = True
                self._notice(NOTICE)
        elif self._depth > 0:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += perf_counter() - self._start

    def _seconds_so_far(self) -> float:
        return self.seconds + perf_counter() - self._start


@contextmanager
def compilation_clock(
    notice: Callable[[str], None], *, policies: Sequence[str] = ()
) -> Iterator[CompilationClock]:
    """A clock that runs while the block compiles kernels.

    Args:
        notice: gets one line, once.
        policies: those that the block will simulate; a second process compiles them meanwhile.
    """
    from numba.core import event

    from blendplan.kernels.ahead import compile_ahead

    event.Listener.register(CompilationClock)
    clock = CompilationClock(notice)
    work = [f"blendplan.planning.tiny:compile_policies:{','.join(policies)}"] if policies else []
    with event.install_listener("numba:compile", clock), compile_ahead(work):
        yield clock
