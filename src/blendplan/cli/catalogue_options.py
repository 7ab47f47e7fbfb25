"""``--grep`` and ``--sort`` of the commands that list catalogues."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer
from blendplan.cli.names import Name

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = Mapping[str, Any]


def listing(
    keys: tuple[str, ...], searched: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add ``--grep`` and ``--sort`` to a command.

    Args:
        keys: what rows can be sorted by; the first is text, the others are numbers.
        searched: in what of a row a pattern is looked for, for the help text.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        function = click.option(
            "--sort",
            type=Name("column", keys),
            metavar="COLUMN",
            help=f"Sort by {', '.join(keys[:-1])} or {keys[-1]}; numbers from the largest down.",
        )(function)
        return click.option(
            "--grep",
            metavar="PATTERN",
            help=f"Only those whose {searched} match a regular expression.",
        )(function)

    return add


def chosen(
    rows: Iterable[Row],
    grep: str | None,
    sort: str | None,
    text: Callable[[Row], str],
    number: Callable[[Row, str], float],
) -> list[Row]:
    """The rows that match, in the order that was asked for.

    Args:
        rows: in the order of the catalogue.
        grep, sort: as given.
        text: of a row, in which the pattern is looked for.
        number: of a row, by what it is sorted.
    """
    found = list(rows)
    if grep is not None:
        try:
            pattern = re.compile(grep, re.IGNORECASE)
        except re.error as error:
            raise click.UsageError(
                f"--grep {grep!r} is no regular expression: {error}; escape special characters "
                "with a backslash"
            ) from None
        found = [row for row in found if pattern.search(text(row))]
    if sort == "name":
        return sorted(found, key=lambda row: str(row["name"]))
    if sort is not None:
        return sorted(found, key=lambda row: -number(row, sort))
    return found


def give_rows(
    answer: Answer,
    kind: str,
    rows: list[Row],
    grep: str | None,
    table: Callable[[list[Row]], "RenderableType"],
) -> None:
    """Write the rows; where a pattern matches none, a line that says so.

    Args:
        answer: of the command.
        kind: what the rows are, in the plural.
        rows: as `chosen`.
        grep: as given.
        table: of rows, for people.
    """
    if not rows and grep is not None:
        answer.remark(f"no {kind} match --grep {grep!r}; without it, all are listed")
    draw = [lambda shown: table(shown[kind])] if rows else []
    answer.give({kind: rows}, *draw)
