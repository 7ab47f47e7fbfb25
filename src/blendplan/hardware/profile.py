"""Profiles: a GPU as TOML text, as `gpu_spec` reads it."""

from dataclasses import fields
from pathlib import Path

import tomli_w

from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_names, gpu_spec
from blendplan.whole_file import replacing


def write_profile(gpu: GpuSpec, path: Path) -> None:
    """Write a profile that `gpu_spec` reads, whole or not at all.

    Raises:
        BlendplanError: a text of the GPU is not Unicode, or the path cannot be written.
    """
    try:
        text = profile_text(gpu).encode()
    except UnicodeEncodeError as error:
        bad = error.object[error.start : error.end]
        raise BlendplanError(
            f"GPU {gpu.name!r}: {bad!r} is not a character that TOML can hold; choose another name"
        ) from None
    with replacing(path) as temporary:
        temporary.write_bytes(text)


def profile_text(gpu: GpuSpec) -> str:
    """The whole of a GPU as TOML; `gpu_from_text` gives it back."""
    return tomli_w.dumps({item.name: getattr(gpu, item.name) for item in fields(gpu)})


def catalogued(gpu: GpuSpec) -> bool:
    """Whether its name alone gives the GPU back."""
    return gpu.name in gpu_names() and gpu_spec(gpu.name) == gpu
