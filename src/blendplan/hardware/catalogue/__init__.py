"""The catalogues of GPUs and models: TOML tables that ship with the package."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from blendplan.errors import BlendplanError
from blendplan.names import unknown
from blendplan.printable import show

S = TypeVar("S")


@cache
def catalogue(name: str) -> dict[str, dict[str, Any]]:
    """Tables of ``<name>.toml`` of this folder, by entry name, in file order."""
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def fitted_tables(gpu: str) -> dict[str, Any]:
    """What was fitted to measurements of a GPU, from ``kernels/<gpu>.toml``; else empty."""
    file = resources.files(__name__).joinpath("kernels", f"{gpu}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def entry_named(name: str, word: str) -> str | None:
    """The entry of a catalogue that a word names, also by an alias; None if there is none.

    Capitals, blanks and underscores do not matter, nor what comes before a slash, as in
    ``meta-llama/Llama-3.1-8B``.
    """
    key = word.strip().lower().replace("_", "-").replace(" ", "-").rsplit("/", 1)[-1]
    for entry, table in catalogue(name).items():
        if key == entry or key in table.get("aliases", ()):
            return entry
    return None


def spec_from_table(kind: type[S], table: Mapping[str, Any], where: str) -> S:
    """A frozen dataclass from a TOML table; ``aliases`` is not a field and is skipped.

    Raises:
        BlendplanError: unknown or missing field, or a value of the wrong type.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    values = {key: value for key, value in table.items() if key != "aliases"}
    for key, value in values.items():
        if key not in known:
            raise BlendplanError(f"{where}: {unknown('field', key, known)}")
        wanted = known[key].type
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            if abs(value) > 10**300:
                raise BlendplanError(f"{where}: {key} is {show(value)}; no such number is meant")
            values[key] = float(value)
        elif wanted is int and isinstance(value, float) and value.is_integer():
            values[key] = int(value)
        elif isinstance(wanted, type) and (
            not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))
        ):
            raise BlendplanError(f"{where}: {key} is {show(value)}; expected {wanted.__name__}")
    for key, item in known.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise BlendplanError(f"{where}: {key} is missing")
    return kind(**values)
