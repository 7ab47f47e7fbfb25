"""Names that a user types: near ones for a wrong one, completion of the right one."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

import blendplan

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # generic in recent click only
    ParamType = click.ParamType


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """``unknown GPU 'a100-80'; did you mean 'a100-80g'?``, or all names where none is near."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(word.lower(), names, n=3, cutoff=0.5)
    if near:
        return f"unknown {kind} {word!r}; did you mean {' or '.join(repr(name) for name in near)}?"
    return f"unknown {kind} {word!r}; choose from {', '.join(names)}"


class Name(ParamType):
    """One of a few names; a wrong one is answered with the near ones."""

    def __init__(self, kind: str, known: tuple[str, ...]) -> None:
        self.name = kind
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.known:
            _refuse(self.name, value, self.known, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.known if name.startswith(incomplete)]


class Names(Name):
    """Several of a few names, separated by commas, in the order given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = tuple(dict.fromkeys(word.strip() for word in str(value).split(",")))
        return tuple(super(Names, self).convert(name, param, ctx) for name in names)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        chosen, comma, word = incomplete.rpartition(",")
        items = super().shell_complete(ctx, param, word)
        return [CompletionItem(f"{chosen}{comma}{item.value}") for item in items]


class CatalogueName(ParamType):
    """A name or an alias from one of the package's catalogues, or a path, which is taken as is.

    The catalogue is read as a file: importing `blendplan.cost` takes longer than a mistyped name
    may wait for its answer.
    """

    def __init__(self, kind: str, catalogue: str) -> None:
        self.name = kind
        self.catalogue = catalogue

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        word = str(value)
        if Path(word).exists() or Path(word).suffix in (".toml", ".json"):
            return word
        tables = self._tables()
        aliases = {alias for table in tables.values() for alias in table.get("aliases", ())}
        key = word.strip().lower().replace("_", "-").replace(" ", "-").rsplit("/", 1)[-1]
        if key not in tables and key not in aliases:
            _refuse(self.name, word, tables, ctx)
        return word

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [name for name in self._tables() if name.startswith(incomplete)]
        return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]

    def _tables(self) -> dict[str, dict[str, Any]]:
        folder = Path(blendplan.__file__).parent / "hardware" / "catalogue"
        text = (folder / f"{self.catalogue}.toml").read_text(encoding="utf-8")
        return tomllib.loads(text)


def _refuse(kind: str, word: str, known: Iterable[str], ctx: click.Context | None) -> NoReturn:
    raise click.UsageError(unknown(kind, word, known), ctx)
