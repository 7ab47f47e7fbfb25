"""The catalogues of GPUs and models: TOML tables that ship with the package."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from blendplan.errors import BlendplanError
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


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean a, b or c?`` for a name that is not among the known ones."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    listed = ", ".join(close[:-1]) + (" or " if len(close) > 1 else "") + close[-1]
    return f"did you mean {listed}?"


def spec_from_table(kind: type[S], table: Mapping[str, Any], where: str) -> S:
    """A frozen dataclass from a TOML table; ``aliases`` is not a field and is skipped.

    Raises:
        BlendplanError: unknown or missing field, or a value of the wrong type.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    values = {key: value for key, value in table.items() if key != "aliases"}
    for key, value in values.items():
        if key not in known:
            raise BlendplanError(f"{where}: unknown field {key!r}; {nearest(key, known)}")
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
