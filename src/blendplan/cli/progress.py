"""Progress bars on standard error, for work that takes more than a second."""

import sys
import threading
from collections import deque
from types import TracebackType

import click

from blendplan.printable import printable

_PATIENCE_S = 1.0
_FRAME_S = 0.1


class Progress:
    """A bar that appears after a second, on a terminal only, and is gone at the end.

    Work reports by `stage` and `advance`, which only set fields; a thread of its own draws them.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._stage = ""
        self._done = 0
        self._total = 0
        self._lines: deque[str] = deque()
        self._drawing = False
        self._ended = threading.Event()
        self._quiet = quiet
        shown = not quiet and sys.stderr.isatty()
        self._thread = threading.Thread(target=self._draw, daemon=True) if shown else None

    def __enter__(self) -> "Progress":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
        self._flush()

    def stage(self, name: str) -> None:
        """Begin a piece of work of unknown size."""
        self._stage, self._done, self._total = printable(name), 0, 0

    def report(self, stage: str, done: int, total: int) -> None:
        """Both at once, for work that tells its stages itself."""
        self._stage, self._done, self._total = stage, done, total

    def advance(self, done: int, total: int) -> None:
        """How far the piece of work has come, in units of its own."""
        self._done, self._total = done, total

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._quiet:
            return
        self._lines.append(printable(text))
        if not self._drawing:
            self._flush()

    def _flush(self) -> None:
        while self._lines:
            click.echo(self._lines.popleft(), err=True)

    def _draw(self) -> None:
        if self._ended.wait(_PATIENCE_S):
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[share]}"),
            TimeElapsedColumn(),
        )
        bars = Bars(
            *columns,
            console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = bars.add_task("", share="", total=None)
        with bars:
            self._drawing = True
            while not self._ended.wait(_FRAME_S):
                while self._lines:
                    bars.console.print(self._lines.popleft())
                done, total = self._done, self._total
                bars.update(
                    task,
                    description=self._stage,
                    completed=done,
                    total=total or None,
                    share=f"{done / total:.0%}" if total else "",
                    refresh=True,
                )
            self._drawing = False
