"""Profiles: a GPU as TOML text, as `gpu_spec` reads it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_names, gpu_spec
from blendplan.whole_file import replacing


def write_profile(gpu: GpuSpec, path: Path) -> None:
    """Write a profile that `gpu_spec` reads, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(profile_text(gpu), encoding="utf-8")


def profile_text(gpu: GpuSpec) -> str:
    """The whole of a GPU as TOML; `gpu_from_text` gives it back."""
    return toml_text({item.name: getattr(gpu, item.name) for item in fields(gpu)})


def catalogued(gpu: GpuSpec) -> bool:
    """Whether its name alone gives the GPU back."""
    return gpu.name in gpu_names() and gpu_spec(gpu.name) == gpu


def toml_text(values: Mapping[str, Any]) -> str:
    """A nested table of text, numbers, arrays and tables as TOML."""
    lines: list[str] = []
    _write_table(values, (), lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(values: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if plain and path:
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            _write_table(value, (*path, key), lines)


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "")
    return key if plain.isascii() and plain.isalnum() else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _text(str(value))


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
