"""Names that a user types: near ones for a wrong one, completion of the right one."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from blendplan.names import Registry, unknown, unknown_entry

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # generic in recent click only
    ParamType = click.ParamType

Known = tuple[str, ...] | Registry[Any]


class Name(ParamType):
    """One of a few names, or of a registry; a wrong one is answered with the near ones.

    A registry is asked when a name is typed, completed or shown, not before: that reads the entry
    points of all that is installed.
    """

    def __init__(self, kind: str, known: Known) -> None:
        self.name = kind
        self._known = known

    @property
    def known(self) -> tuple[str, ...]:
        """All names that may be typed."""
        return tuple(self._known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self._known:
            _refuse(self.name, value, self.known, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.known if name.startswith(incomplete)]


class NameOption(click.Option):
    """An option of type `Name` whose help text has ``{names}`` in place of the names."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        if isinstance(self.type, Name) and self.help:
            self.help = self.help.replace("{names}", ", ".join(self.type.known))
        return super().get_help_record(ctx)


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
    """A name or an alias from one of the package's catalogues, or a path, which is taken as is."""

    def __init__(self, kind: str, catalogue: str) -> None:
        self.name = kind
        self.catalogue = catalogue

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from blendplan.hardware.catalogue import aliases, entry_named

        word = str(value)
        if (word and Path(word).exists()) or Path(word).suffix in (".toml", ".json"):
            return word
        if entry_named(self.catalogue, word) is None:
            raise click.UsageError(unknown_entry(self.name, word, aliases(self.catalogue)), ctx)
        return word

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from blendplan.hardware.catalogue import aliases

        names = [name for name in aliases(self.catalogue) if name.startswith(incomplete)]
        return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def _refuse(kind: str, word: str, known: Iterable[str], ctx: click.Context | None) -> NoReturn:
    raise click.UsageError(unknown(kind, word, known), ctx)
