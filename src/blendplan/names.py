"""Names that users type: registries of plug-ins, and the nearest names for one that is unknown."""

import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import takewhile
from operator import eq
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from blendplan.errors import BlendplanError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

# How alike names must be to be offered for each other, 0 to 1. In a short one, such as fp16, half
# the letters may be wrong.
_ALIKE, _ALIKE_IN_SHORT = 0.6, 0.5
_SHORT = 4
# How much a common beginning makes up for the rest, 0 to 1.
_BEGINNING = 0.5
_MOST_LISTED = 30


def near(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names that are most like a word, capitals or not, the most alike first.

    Of names that are about as alike, those that begin as the word does come first, as people
    mistype endings and versions more than beginnings (Winkler, 1990).
    """
    from difflib import SequenceMatcher, get_close_matches

    names = {name.lower(): name for name in known}
    text = str(word).lower()  # a library is given whatever
    cutoff = _ALIKE_IN_SHORT if len(text) <= _SHORT else _ALIKE
    alike = get_close_matches(text, names, n=max(1, len(names)), cutoff=cutoff)

    def score(name: str) -> float:
        ratio = SequenceMatcher(None, name, text).ratio()
        same = sum(takewhile(bool, map(eq, name, text)))
        return ratio + _BEGINNING * same / max(1, len(text)) * (1 - ratio)

    return [names[name] for name in sorted(alike, key=score, reverse=True)[:count]]


def did_you_mean(word: str, known: Iterable[str], count: int = 3) -> str:
    """``did you mean 'a100-80g' or 'a100-40g'?``; empty where no name is near."""
    alike = near(word, known, count)
    return f"did you mean {' or '.join(map(repr, alike))}?" if alike else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """``unknown GPU 'a100-80'; did you mean 'a100-80g'?``, or all names where none is near.

    Where there are too many to list, their number.

    Args:
        kind: what the word should have named.
        word: what was typed.
        known: all names there are.
    """
    names = list(known)
    listed = ", ".join(names) if len(names) <= _MOST_LISTED else f"{len(names)} that are known"
    hint = did_you_mean(word, names) or f"choose from {listed}"
    return f"unknown {kind} {word!r}; {hint}"


def unknown_entry(kind: str, word: str, known: Iterable[str]) -> str:
    """As `unknown`, of a word that is a name in a catalogue or a path.

    Args:
        kind: what the word should have named.
        word: what was typed; no file or folder has that path.
        known: all names there are.
    """
    if not word.strip():
        return f"the {kind} is empty; give a name or a path"
    if "/" not in word and os.sep not in word and not word.startswith("."):
        return unknown(kind, word, known)
    hint = did_you_mean(word.rstrip("/").rsplit("/", 1)[-1], known) or "check the path"
    return f"there is no file or folder {word!r}, and no {kind} of that name; {hint}"


class Registry(Generic[T]):
    """Implementations of one kind by name: a row for each of ours, an entry point for others'.

    Nothing is imported until an implementation is asked for, so that the command line can list
    names at once. Our own names win: an entry point of the same name is left aside.

    Args:
        kind: what the names name, for messages.
        group: entry-point group of third parties, such as ``blendplan.policies``.
        rows: our own, ``"module:object"`` by name; the first is no default.
    """

    def __init__(self, kind: str, group: str, rows: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._rows = dict(rows)

    def names(self) -> list[str]:
        """All names, ours in the order of their rows, then those of third parties in theirs."""
        return [*self._rows, *self._foreign()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._foreign()

    def check(self, name: str) -> None:
        """Raise a `BlendplanError` with the nearest names when there is no such implementation."""
        if name not in self:
            raise BlendplanError(unknown(self.kind, name, self.names()))

    def get(self, name: str) -> T:
        """The implementation of that name, imported now.

        Raises:
            BlendplanError: the name is unknown, or what a third party registered cannot be
                imported.
        """
        self.check(name)
        if name in self._rows:
            module, _, attribute = self._rows[name].partition(":")
            return cast(T, getattr(import_module(module), attribute))
        entry = self._foreign()[name]
        try:
            return cast(T, entry.load())
        except (ImportError, AttributeError) as error:
            raise BlendplanError(
                f"{self.kind} {name!r} is registered as {entry.value!r}, which cannot be imported "
                f"({error}); fix or remove the package that registers it"
            ) from None

    def _foreign(self) -> dict[str, "EntryPoint"]:
        from importlib.metadata import entry_points  # half as slow to import as all the rest

        found: Any = entry_points(group=self.group)
        return {entry.name: entry for entry in found if entry.name not in self._rows}
