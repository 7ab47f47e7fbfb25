"""``@kernel``: compile a numeric loop with numba, cached on disk."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a hot loop on first call and keep the machine code on disk.

    The GIL is released while it runs. Fast-math stays off, so that the same input gives the same
    floating-point results on every machine.
    """
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled


def forget_stale_code(package: Path) -> None:
    """Remove cached machine code that is older than a source file it may have come from.

    Numba compares a function with its own file only. Code of the functions that it calls, and
    constants from other files, are part of its machine code too: after an update of one of those
    files it would run on unchanged.
    """
    # Another process may be at the same, or the installation be read-only.
    with contextlib.suppress(OSError):
        indices = list(package.rglob("*.nbi"))
        folders = {index.parent.parent for index in indices}
        sources = [source for folder in folders for source in folder.glob("*.py")]
        newest = max((source.stat().st_mtime for source in sources), default=0.0)
        for index in indices:
            if index.stat().st_mtime < newest:
                index.unlink()


forget_stale_code(Path(__file__).parent)
