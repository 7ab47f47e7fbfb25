"""Machine code on disk, under what it depends on.

One file holds the machine code of one function for one list of argument types. Its name carries a
digest of the function's code, of all that it calls, of the constants in it, of the types, and of
numba, Python and the processor (see `fingerprint`). So an entry is right as long as it exists, an
edit elsewhere leaves it in use, and nothing ever has to be deleted.
"""

import atexit
import hashlib
import os
import pickle
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numba
import numpy as np
from numba.core import caching, sigutils
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from blendplan.kernels.fingerprint import NotIdentifiedError, fingerprint

try:
    import fcntl
except ImportError:  # No such thing on Windows: two processes may compile the same kernel there.
    fcntl = None  # type: ignore[assignment]

FOLDER = "blendplan-kernels"
# Two processes that wait for each other's kernels would wait forever.
LONGEST_WAIT_S = 120.0
POLL_S = 0.02
DIGEST_BYTES = 32


class KernelCache(caching._Cache):  # type: ignore[misc]
    """Where numba asks for the machine code of one kernel, and leaves it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """The folder of all entries."""
        return str(cache_folder())

    def enable(self) -> None:
        """Read and write entries."""
        self._enabled = True

    def disable(self) -> None:
        """Compile everything again and keep nothing."""
        self._enabled = False

    def flush(self) -> None:
        """Nothing is outdated, so nothing is removed."""

    @cached_property
    def identified(self) -> bool:
        """Whether the code of this kernel has a digest."""
        try:
            fingerprint(self._compiled)
        except NotIdentifiedError:
            return False
        return True

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Machine code for one signature, or None where numba has to compile it.

        While another process compiles the same, this waits for it.
        """
        target_context.refresh()
        entry = self._entry(sig, target_context.codegen())
        if entry is None:
            return None
        loaded = entry.load(target_context)
        if loaded is None and entry.lock():
            loaded = entry.load(target_context)
        if loaded is not None:
            entry.unlock()
            return loaded
        IN_PROGRESS[self._place(sig)] = entry
        while WHEN_MISSING:
            WHEN_MISSING.pop()()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what numba has compiled; where that is impossible, it serves this process only."""
        entry = IN_PROGRESS.pop(self._place(sig), None)
        if entry is None:
            return
        try:
            if not data.lifted and not data.library.has_dynamic_globals:
                entry.save(data)
        finally:
            entry.unlock()

    def _place(self, sig: Any) -> tuple[Any, tuple[Any, ...]]:
        return self._compiled.py_func, tuple(sigutils.normalize_signature(sig)[0])

    def _entry(self, sig: Any, codegen: Any) -> "Entry | None":
        if not self._enabled:
            return None
        types, returned = sigutils.normalize_signature(sig)
        try:
            digest = fingerprint(self._compiled, types, returned, _machine(codegen))
        except NotIdentifiedError:
            return None
        return Entry(self._compiled.py_func, digest)


class CalleeCache(KernelCache):
    """Names the code of a kernel that is compiled into others; it is kept as part of theirs."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Always None; notes the name."""
        target_context.refresh()
        entry = self._entry(sig, target_context.codegen())
        if entry is not None:
            IN_PROGRESS[self._place(sig)] = entry

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep nothing."""
        IN_PROGRESS.pop(self._place(sig), None)


class Entry:
    """The file of one kernel for one signature, and the lock on it while it is compiled.

    The file begins with the digest that it belongs to and the digest of what follows, so that a
    damaged file is told from a good one before any of it is believed.
    """

    def __init__(self, function: Any, digest: str) -> None:
        self.digest = digest
        name = re.sub(r"[^A-Za-z0-9_.]", "", f"{function.__module__}.{function.__qualname__}")
        self.path = cache_folder() / f"{name[-80:]}-{digest[:32]}.nbc"
        self._lock_path = self.path.with_suffix(".lock")
        self._lock: IO[bytes] | None = None

    def load(self, target_context: Any) -> Any:
        """The compiled function, ready to be called; None where there is none."""
        head = bytes.fromhex(self.digest)
        try:
            data = self.path.read_bytes()
            body = data[2 * DIGEST_BYTES :]
            if data[: 2 * DIGEST_BYTES] != head + hashlib.sha256(body).digest():
                return None
            return CompileResult._rebuild(target_context, *pickle.loads(body))
        except OSError:
            return None
        except (pickle.PickleError, AttributeError, ImportError, TypeError):
            # A class in the signature has gone where nobody finds it.
            return None

    def save(self, compiled: Any) -> None:
        """Write it in one go: another process sees all of it or nothing."""
        body = dumps(compiled._reduce())
        data = bytes.fromhex(self.digest) + hashlib.sha256(body).digest() + body
        with suppress(OSError):
            folder, stem = self.path.parent, self.path.stem
            file, name = tempfile.mkstemp(dir=folder, prefix=stem, suffix=".tmp")
            try:
                with os.fdopen(file, "wb") as stream:
                    stream.write(data)
                # As readable as any other file of this user; mkstemp hides it from all others.
                Path(name).chmod(0o666 & ~_umask())
                Path(name).replace(self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def lock(self) -> bool:
        """Keep other processes from compiling the same; True when one of them just has."""
        if fcntl is None:
            return False
        try:
            self._lock = self._lock_path.open("wb")
        except OSError:
            return False
        deadline = time.monotonic() + LONGEST_WAIT_S
        waited = False
        while time.monotonic() < deadline:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                time.sleep(POLL_S)
            except OSError:
                # A file system without locks.
                break
            else:
                return waited or self.path.exists()
        return False

    def unlock(self) -> None:
        """Let the others look; the lock of a process that dies is released by the system."""
        if self._lock is not None:
            self._lock_path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


# What this process is compiling, by Python function and argument types; numba compiles under
# a lock, and from the inside out.
IN_PROGRESS: dict[tuple[Any, tuple[Any, ...]], Entry] = {}
# What is to be done when the first kernel has to be compiled.
WHEN_MISSING: list[Callable[[], None]] = []


def _machine(codegen: Any) -> str:
    """All that decides on machine code beside the function, as text."""
    config = numba.config
    versions = (numba.__version__, np.__version__, platform.python_version())
    options = (
        f"{config.OPT!s} {getattr(config.OPT, 'is_opt_max', False)}",
        *(config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.LLVM_REFPRUNE_FLAGS),
        *(config.LLVM_REFPRUNE_PASS, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT),
    )
    return repr((versions, codegen.magic_tuple(), options, _pipeline()))


@lru_cache(maxsize=1)
def _pipeline() -> str:
    """How `kernel` has code compiled: what is linked and optimised when is its own choice."""
    return hashlib.sha256(Path(__file__).with_name("kernel.py").read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where machine code is kept, found at the first need: the first place that can be written."""
    places = [Path(__file__).parents[1] / "__pycache__"]
    if numba.config.CACHE_DIR:
        places.insert(0, Path(numba.config.CACHE_DIR))
    if os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(os.environ["XDG_CACHE_HOME"]))
    elif os.environ.get("HOME"):
        places.append(Path(os.environ["HOME"], ".cache"))
    for place in places:
        if _writable(place / FOLDER):
            return place / FOLDER
    # Nowhere to keep it: for this process only.
    temporary = Path(tempfile.mkdtemp(prefix=f"{FOLDER}-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def cache_is_kept() -> bool:
    """Whether another process finds what this one compiles."""
    return cache_folder().name == FOLDER


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
