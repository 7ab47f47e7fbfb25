"""`Tasks`: where the tasks of a large plan run; here, in processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Protocol, TypeVar

from blendplan.errors import BlendplanError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_PROCESSES = 8
"""Processes that are started where no number is given; each takes the memory of its task."""

_JOIN_S = 5.0


class Tasks(Protocol):
    """Runs functions of a module on items, several at a time, wherever it has room."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of the items; of several that fail, the first item's error.

        Raises:
            BlendplanError: what a task raised, or that one ended without an answer.
        """
        ...


class LocalTasks:
    """Tasks in a few processes of this machine; a single one is this process itself.

    Parameters:
        processes: how many; as many as there are cores, at most `MOST_PROCESSES`, without it.

    Use as a context manager. The processes end with this one, however it ends.
    """

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes or min(os.cpu_count() or 1, MOST_PROCESSES)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "LocalTasks":
        if self.processes > 1:
            # Forked processes would inherit threads that are not there.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, initializer=_follow_parent)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        if kind is not None:  # nobody needs what still runs
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """See `Tasks.map`."""
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[Result]] = deque()
        started: dict[int, BaseProcess] = {}
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                started |= self._pool._processes
                if len(waiting) > 2 * self.processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise BlendplanError(_obituary(started.values())) from None


def _obituary(processes: Collection[BaseProcess]) -> str:
    """Why a process ended: those that are killed have another exit code than 1."""
    for process in processes:
        process.join(_JOIN_S)
    if any(process.exitcode == 1 for process in processes):
        return (
            "a planning process could not begin, as it runs the calling script anew; call this "
            "under if __name__ == '__main__', or with processes=1"
        )
    return (
        "a planning process ended without an answer, killed or out of memory; fewer processes or "
        "more replicas take less memory"
    )


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end when it ends, even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
