"""A run over time as rows of block characters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from blendplan.report.quantities import duration

_LEAST_CELLS = 12
_LEVELS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Row:
    """One quantity over time.

    Attributes:
        label: what it is.
        values: its mean between the previous point in time and this one; [k].
        scale: the value that a full block stands for.
        legend: what that value is.
        style: colour, as rich names it.
    """

    label: str
    values: ArrayLike
    scale: float
    legend: str
    style: str = ""


@dataclass(frozen=True)
class Timeline:
    """Rows of cells, each the time-weighted mean of its share of the run.

    Attributes:
        end_s: end of each interval in seconds, increasing; the first begins at 0; [k].
        rows: one line each; their values belong to the intervals.
        width: cells at most; fewer on a narrow terminal.
    """

    end_s: ArrayLike
    rows: Sequence[Row]
    width: int = 72

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ends = np.asarray(self.end_s, dtype=np.float64)
        beside = sum(
            max((cell_len(words) + 1 for words in column), default=0)
            for column in ([row.label for row in self.rows], [row.legend for row in self.rows])
        )
        width = max(_LEAST_CELLS, min(self.width, options.max_width - beside))
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, style="dim")
        for row in self.rows:
            cells = resample(ends, np.asarray(row.values, dtype=np.float64), width)
            table.add_row(row.label, Text(bars(cells, row.scale), style=row.style), row.legend)
        if len(ends):
            last = duration(float(ends[-1]))
            table.add_row("", f"0 s{last:>{width - 3}}", "")
        yield table


def bars(cells: NDArray[np.float64], scale: float) -> str:
    """One character a cell; anything above 0 shows at least the lowest block."""
    if scale <= 0:
        return " " * len(cells)
    top = len(_LEVELS) - 1
    levels = np.clip(np.ceil(cells / scale * top - 1e-9), 0, top).astype(int)
    return "".join(_LEVELS[level] for level in levels)


def resample(
    end_s: NDArray[np.float64], values: NDArray[np.float64], width: int
) -> NDArray[np.float64]:
    """Means of a step function over `width` equal parts of its time; float64 [width]."""
    if len(end_s) == 0 or end_s[-1] <= 0:
        return np.zeros(width)
    times = np.concatenate(([0.0], end_s))
    integral = np.concatenate(([0.0], np.cumsum(values * np.diff(times))))
    edges = np.linspace(0.0, end_s[-1], width + 1)
    cells: NDArray[np.float64] = np.diff(np.interp(edges, times, integral) * width / end_s[-1])
    return cells
