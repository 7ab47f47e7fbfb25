"""From a name, a profile or a folder to the specification of a GPU or a model."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blendplan.checks.arguments import LONGEST_PATH
from blendplan.checks.json_files import read_text
from blendplan.errors import BlendplanError
from blendplan.hardware.catalogue import (
    aliases,
    catalogue,
    entry_named,
    fitted_tables,
    model_fields,
    short_gpu_name,
    spec_from_table,
)
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.names import did_you_mean, unknown_entry
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
    entry = entry_named("gpus", text)
    if entry is None:
        raise BlendplanError(
            f"{_unknown_gpu(text)} (`blendplan gpus` lists all, and a path to a profile in TOML "
            "works too)"
        )
    measured = {"fitted": fitted_tables(entry)}
    return _from_table(entry, catalogue("gpus")[entry] | measured, f"GPU {entry}")


def _unknown_gpu(text: str) -> str:
    """A name that is no GPU's, and those that are near it or what drivers would call so."""
    short = short_gpu_name(text)
    words = short.split("-")
    hints = (did_you_mean("-".join(words[:end]), gpu_names()) for end in range(len(words), 0, -1))
    hint = next(filter(None, hints), "")
    if hint and short != text.lower() and "/" not in text:
        return f"unknown GPU {text!r}; {hint}"
    return unknown_entry("GPU", text, gpu_names())


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
        BlendplanError: not TOML, wrong fields, numbers of another unit.
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
    gpu = _from_table(table.pop("name", name), table, where)
    gpu.check_units(where)
    return gpu


def _from_table(name: object, table: Mapping[str, Any], where: str) -> GpuSpec:
    return spec_from_table(GpuSpec, {"name": name, **table}, where)


def model_names() -> list[str]:
    """Names in the catalogue, in its order."""
    return list(aliases("models"))


def model_folder(name: str) -> str | None:
    """The folder of that model, or of the ``config.json`` with that path; None for a name."""
    path = Path(name)
    if path.name == "config.json":
        path = path.parent
    return str(path) if path.is_dir() else None


def model_spec(name: str | Path) -> ModelSpec:
    """The model of that name, or of that folder with (or path of) a Hugging Face ``config.json``.

    Raises:
        BlendplanError: unknown name, no or bad ``config.json``.
    """
    if not isinstance(name, str | Path):
        raise BlendplanError(f"model is {show(name)}; give a name, or a folder with config.json")
    from blendplan.hardware.hf_config.read import model_from_config, read_config

    path = Path(name)
    if len(str(name)) > LONGEST_PATH:
        raise BlendplanError(f"model is {show(str(name))}; no name is as long as that")
    entry = entry_named("models", str(name))
    a_file = path.suffix == ".json" and (entry is None or path.exists())
    if isinstance(name, Path) or (name and _is_folder(path)) or a_file:
        return read_config(path)
    if entry is None:
        raise BlendplanError(
            f"{unknown_entry('model', str(name), model_names())} (`blendplan models` lists all, "
            "and a folder with config.json works too)"
        )
    return model_from_config(entry, model_fields(entry), f"model {entry}", {}, {})


def known_model(model: ModelSpec) -> bool:
    """Whether its name alone gives the model back, but for the dtype of the KV cache."""
    return model.name in model_names() and model == replace(
        model_spec(model.name), kv_bits=model.kv_bits
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no name that a folder can have
        return False
