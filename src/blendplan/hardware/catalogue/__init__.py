"""The catalogues of GPUs and models: TOML tables that ship with the package."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from blendplan.errors import BlendplanError
from blendplan.names import unknown
from blendplan.printable import show

S = TypeVar("S")


# Endings and beginnings of names that say which copy of a model is meant, not which shape it has.
_ENDINGS = ("instruct", "it", "chat", "hf", "base", "bf16", "pt", "preview")
_BEGINNINGS = ("meta", "nvidia", "ai21")
# Words that drivers have in the names of GPUs beside those that say which it is. HBM2e is none of
# them: an H100 with it is the PCIe card.
_DRIVER_WORDS = (
    *("nvidia", "amd", "intel", "tesla", "instinct", "geforce"),
    *("hbm3", "oam", "generation", "edition", "blackwell"),
)


@cache
def catalogue(name: str) -> dict[str, dict[str, Any]]:
    """Tables of ``<name>.toml`` of this folder, by entry name, in file order."""
    return _table(f"{name}.toml")


@cache
def aliases(name: str) -> dict[str, list[str]]:
    """Other names of each entry of a catalogue, in its order."""
    if name == "models":
        return _table("models.toml")
    return {entry: table.get("aliases", []) for entry, table in catalogue(name).items()}


@cache
def model_fields(entry: str) -> dict[str, Any]:
    """Fields of ``config.json`` of a model of the catalogue; one file each, read when asked for."""
    return _table("models", f"{entry}.toml")


def _table(*path: str) -> dict[str, Any]:
    file = resources.files(__name__).joinpath(*path)
    return tomllib.loads(file.read_text(encoding="utf-8"))


@cache
def fitted_tables(gpu: str) -> dict[str, Any]:
    """What was fitted to measurements of a GPU, from ``kernels/<gpu>.toml``; else empty."""
    file = resources.files(__name__).joinpath("kernels", f"{gpu}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def entry_named(name: str, word: str) -> str | None:
    """The entry of a catalogue that a word names, also by an alias; None if there is none.

    Capitals, blanks, dots, dashes and underscores do not matter, nor what comes before a slash, as
    in ``meta-llama/Llama-3.1-8B``, nor an ending such as ``-instruct``, nor what drivers add to the
    name of a GPU, as in ``NVIDIA H100 80GB HBM3``.
    """
    known = _squashed(name)
    key = _key(name, word.strip().removesuffix(".json").rsplit("/", 1)[-1])
    for candidate in _candidates(key):
        if candidate in known:
            return known[candidate]
    return None


def squash(word: str) -> str:
    """Letters and digits of a name, in small letters."""
    return "".join(letter for letter in word.lower() if letter.isalnum())


def short_gpu_name(word: str) -> str:
    """A GPU's name without what drivers add, in the catalogue's way: ``h100-80g``."""
    text = re.sub(r"\b(\d+) ?gb\b", r"\1g", word.lower())
    words = (re.sub(r"^sxm\d$", "sxm", each) for each in re.findall(r"[a-z0-9]+", text))
    return "-".join(each for each in words if each not in _DRIVER_WORDS)


def _key(name: str, word: str) -> str:
    """What is compared of a name in a catalogue."""
    return squash(short_gpu_name(word) if name == "gpus" else word)


@cache
def _squashed(name: str) -> dict[str, str]:
    """Entries by what is compared of their names and aliases."""
    found = {
        _key(name, alias): entry for entry, others in aliases(name).items() for alias in others
    }
    return found | {_key(name, entry): entry for entry in aliases(name)}


def _candidates(key: str) -> Iterator[str]:
    """A squashed name, then without a beginning or endings that make no difference."""
    starts = [key] + [key.removeprefix(word) for word in _BEGINNINGS if key.startswith(word)]
    for start in starts:
        yield start
        shorter = start
        while ending := next((word for word in _ENDINGS if shorter.endswith(word)), ""):
            shorter = shorter.removesuffix(ending)
            yield shorter


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
