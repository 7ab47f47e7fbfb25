"""Progress bars on standard error, for work that takes more than a second."""

import sys
import threading
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

import click

from blendplan.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_PATIENCE_S = 1.0
_FRAME_S = 0.1


class Progress:
    """A bar that appears after a second, on a terminal only, and is gone at the end.

    Work reports by `stage` and `advance`, which only set fields; rich reads them when it draws.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._stage = ""
        self._done = 0
        self._total = 0
        self._quiet = quiet
        self._begun_s = monotonic()
        self._bar: Live | None = None
        self._lock = threading.Lock()
        shown = not quiet and sys.stderr.isatty()
        self._patience = threading.Timer(_PATIENCE_S, self._show) if shown else None

    def __enter__(self) -> "Progress":
        if self._patience:
            self._patience.daemon = True
            self._patience.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience.join()
        if self._bar:
            self._bar.stop()

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
        with self._lock:
            if self._bar:
                self._bar.console.print(printable(text))
            else:
                click.echo(printable(text), err=True)

    def _show(self) -> None:
        from rich.console import Console
        from rich.live import Live

        bar = Live(
            get_renderable=self._row,
            console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            refresh_per_second=1 / _FRAME_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self._lock:
            bar.start(refresh=True)
            self._bar = bar

    def _row(self) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        stage, done, total = self._stage, self._done, self._total
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(stage),
            ProgressBar(total or None, done, width=40),
            f"{done / total:.0%}" if total else "",
            Text(str(timedelta(seconds=int(monotonic() - self._begun_s))), "progress.elapsed"),
        )
        return row
