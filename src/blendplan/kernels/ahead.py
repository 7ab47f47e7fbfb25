"""Compile kernels in a second process while this one goes on.

Numba compiles one kernel at a time in a process. A second process that needs the same kernels,
best from the other end of the list, fills the same cache; a process that comes to a kernel that the
other one is compiling waits for it and loads it (see `cache`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from blendplan.kernels.cache import WHEN_MISSING, cache_is_kept

# In the environment of the second process, which starts no third.
MARK = "BLENDPLAN_COMPILES_AHEAD"
# Imports what it is told, and runs it; ends as soon as nobody holds the other end of its input.
CHILD = """\
import os, sys, threading
def watch():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
from importlib import import_module
sys.path[:] = sys.argv[2:]
for work in sys.argv[1].split(";"):
    module, function, *arguments = work.split(":")
    getattr(import_module(module), function)(*arguments)
"""


@contextmanager
def compile_ahead(work: Sequence[str]) -> Iterator[None]:
    """Run ``work`` in a second process, starting when the block must compile its first kernel.

    The process prints nothing, and its failures affect nobody else. It ends with the
    block or with this process, whichever is first. None is started where all kernels are in the
    cache, where nobody else would see what it compiles, or on a single core.

    Args:
        work: functions that call kernels, as ``package.module:function``, and ``:argument`` for
            one text that they are called with, in the order in which they run: best those first
            that the block needs last.
    """
    if not work or MARK in os.environ or _cores() == 1:
        yield
        return
    children: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if cache_is_kept():
            with suppress(OSError):
                children.append(_started(work))

    WHEN_MISSING.append(start)
    try:
        yield
    finally:
        if start in WHEN_MISSING:
            WHEN_MISSING.remove(start)
        for child in children:
            _end(child)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _started(work: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, ";".join(work), *sys.path],
        env={**os.environ, MARK: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _end(child: "subprocess.Popen[bytes]") -> None:
    # Killed in the middle of a kernel, it leaves that one uncompiled and its lock released.
    with suppress(OSError):
        child.kill()
    child.wait()
    if child.stdin is not None:
        child.stdin.close()
