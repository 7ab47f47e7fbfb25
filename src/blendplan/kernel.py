"""``@kernel``: compile a numeric loop with numba, cached on disk."""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])

_PACKAGE = Path(__file__).parent


def kernel(function: F) -> F:
    """Compile a hot loop on first call and keep the machine code on disk.

    The GIL is released while it runs. Fast-math stays off, so that the same input gives the same
    floating-point results on every machine.
    """
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER)
    try:
        compiled: F = numba.njit(cache=True, nogil=True)(function)
    finally:
        numba.config.CACHE_DIR = before
    return compiled


def code_version(package: Path) -> str:
    """Digest of all sources that machine code of ``package`` may come from.

    Numba compares a function with its own file only. Code of the functions that it calls, and
    constants from other files, are part of its machine code too: without this, it would run on
    unchanged after an update of one of those.
    """
    sources = {source: source.read_bytes() for source in sorted(package.rglob("*.py"))}
    folders = {source.parent for source, text in sources.items() if b"\n@kernel\n" in text}
    digest = hashlib.sha256()
    for source, text in sources.items():
        if source.parent in folders:
            digest.update(f"{source.relative_to(package).as_posix()}:{len(text)}\0".encode())
            digest.update(text)
    return digest.hexdigest()[:16]


def _folder() -> Path:
    """Where the machine code of this version is kept; other versions beside it are removed."""
    name = f"blendplan-kernels-{code_version(_PACKAGE)}"
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR) / name
    beside = _PACKAGE / "__pycache__"
    if _writable(beside / name):
        for other in beside.glob("blendplan-kernels-*"):
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)
        return beside / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "/"), ".cache"))
    if _writable(cache / name):
        return cache / name
    # Nowhere to keep it: for this process only.
    temporary = Path(tempfile.mkdtemp(prefix="blendplan-kernels-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


_FOLDER = _folder()
