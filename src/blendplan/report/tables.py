"""`Columns`: a table that fits the terminal without cutting a number."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

# Names in the first column break where they are longer and there is no room.
_NAME = 24


@dataclass(frozen=True)
class Column:
    """What stands above a column, and what becomes of it where there is little room.

    Attributes:
        heading: in one line.
        narrow: the heading in several lines; by default one line a word.
        text: words rather than numbers.
        spare: 0 for a column that stays; of the others, the highest goes first.
    """

    heading: str
    narrow: str = ""
    text: bool = False
    spare: int = 0


@dataclass(frozen=True)
class Columns:
    """Rows under headings.

    Where a terminal is too narrow, long names in the first column break, then columns move
    together, then headings break, then spare columns go.

    Attributes:
        columns: the first one names the rows.
        rows: one cell a column.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        shown = list(range(len(self.columns)))
        for narrow, gap in ((False, 3), (False, 2), (True, 2)):
            if self._width(shown, narrow, gap) <= room:
                break
        spare = sorted(shown, key=lambda index: self.columns[index].spare)
        while self._width(shown, narrow, gap) > room and self.columns[spare[-1]].spare:
            shown.remove(spare.pop())
        others = self._width(shown[1:], narrow, gap) + gap
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, gap - 2))
        for index in shown:
            column = self.columns[index]
            table.add_column(
                self._heading(index, narrow),
                justify="left" if column.text else "right",
                no_wrap=index > 0,
                overflow="fold",
                max_width=None if index else max(_NAME, room - others),
            )
        for row in self.rows:
            table.add_row(*(row[index] for index in shown))
        yield table

    def _width(self, shown: Sequence[int], narrow: bool, gap: int) -> int:
        """Cells that a line takes, with names as short as they may become."""
        total = gap * (len(shown) - 1)
        for index in shown:
            cells = (*self._heading(index, narrow).split("\n"), *(row[index] for row in self.rows))
            width = max(map(cell_len, cells))
            total += width if index else min(width, _NAME)
        return total

    def _heading(self, index: int, narrow: bool) -> str:
        column = self.columns[index]
        if not narrow:
            return column.heading
        return column.narrow or column.heading.replace(" ", "\n")
