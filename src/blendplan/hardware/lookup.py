"""From a name, a profile or a folder to the specification of a GPU or a model."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.arguments import LONGEST_PATH
from blendplan.errors import BlendplanError
from blendplan.hardware.catalogue import catalogue, fitted_tables, nearest, spec_from_table
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.json_files import read_text
from blendplan.printable import show


def gpu_names() -> list[str]:
    """Names in the catalogue, in its order."""
    return list(catalogue("gpus"))


def gpu_spec(name: str | Path) -> GpuSpec:
    """The GPU of that name, or of that TOML file (a profile).

    A profile has the fields of `GpuSpec`, or ``base = NAME`` and the fields that differ from it.

    Raises:
        BlendplanError: unknown name, unreadable file, wrong fields.
    """
    if not isinstance(name, str | Path):
        raise BlendplanError(f"gpu is {show(name)}; give a name, or the path of a profile in TOML")
    text = str(name)
    if len(text) > LONGEST_PATH:
        raise BlendplanError(f"gpu is {show(text)}; no name is as long as that")
    if text.endswith(".toml"):
        return _from_profile(Path(text))
    tables = catalogue("gpus")
    key = text.strip().lower().replace("_", "-").replace(" ", "-")
    for entry, table in tables.items():
        if key == entry or key in table.get("aliases", ()):
            measured = {"fitted": fitted_tables(entry)}
            return _from_table(entry, table | measured, f"GPU {entry}")
    raise BlendplanError(
        f"unknown GPU {text!r}: {nearest(key, tables)}; "
        "`blendplan gpus` lists all, and a path to a profile in TOML works too"
    )


def _from_profile(path: Path) -> GpuSpec:
    where = f"GPU profile {path}"
    return gpu_from_text(read_text(path, where, "give a TOML file", "TOML"), where, path.stem)


def gpu_from_text(text: str, where: str, name: str) -> GpuSpec:
    """The GPU of a profile's text.

    Args:
        text: TOML.
        where: what errors call the profile.
        name: of the GPU if the profile states none.

    Raises:
        BlendplanError: not TOML, wrong fields.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise BlendplanError(f"{where} is nested too deeply; that is no profile") from None
    except ValueError as error:
        raise BlendplanError(f"{where} is not TOML: {error}") from None
    base = table.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or base.endswith(".toml"):
            raise BlendplanError(f"{where}: base is {base!r}; give a catalogue name")
        known = gpu_spec(base)
        table = {item: getattr(known, item) for item in GpuSpec.__dataclass_fields__} | table
    return _from_table(table.pop("name", name), table, where)


def _from_table(name: object, table: Mapping[str, Any], where: str) -> GpuSpec:
    return spec_from_table(GpuSpec, {"name": name, **table}, where)


def model_names() -> list[str]:
    """Names in the catalogue, in its order."""
    return list(catalogue("models"))


def model_spec(name: str | Path) -> ModelSpec:
    """The model of that name, or of that folder with (or path of) a Hugging Face ``config.json``.

    Raises:
        BlendplanError: unknown name, no or bad ``config.json``.
    """
    if not isinstance(name, str | Path):
        raise BlendplanError(f"model is {show(name)}; give a name, or a folder with config.json")
    path = Path(name)
    if len(str(name)) > LONGEST_PATH:
        raise BlendplanError(f"model is {show(str(name))}; no name is as long as that")
    if isinstance(name, Path) or _is_folder(path) or path.suffix == ".json":
        from blendplan.hardware.hf_config import read_config

        return read_config(path)
    tables = catalogue("models")
    key = str(name).strip().lower().replace("_", "-").rsplit("/", 1)[-1]
    for entry, table in tables.items():
        if key == entry or key in table.get("aliases", ()):
            return spec_from_table(ModelSpec, {"name": entry, **table}, f"model {entry}")
    raise BlendplanError(
        f"unknown model {str(name)!r}: {nearest(key, tables)}; "
        "`blendplan models` lists all, and a folder with config.json works too"
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no name that a folder can have
        return False
