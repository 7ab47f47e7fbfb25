"""Files that a run leaves beside its results: opened through no link, replaced under one name.

Results may lie in a folder that others write to. Whatever somebody has put at the name of a file of
ours, a link to a file of somebody else's above all, is refused and never written through.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from blendplan.errors import BlendplanError


def refuse_link(path: Path) -> None:
    """Refuse a path at which there is a symbolic link, wherever it leads.

    Raises:
        BlendplanError: there is one.
    """
    if path.is_symlink():
        raise _is_link(path)


def open_regular(path: Path, flags: int) -> int:
    """Descriptor of a regular file, opened through no symbolic link.

    Raises:
        BlendplanError: it is something else, or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_link(path) from None
        raise BlendplanError(
            f"cannot open {path}: {os.strerror(error.errno or 0).lower()}; fix that, or choose "
            "another place"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BlendplanError(f"{path} is no regular file; give another output path")
    return descriptor


def _is_link(path: Path) -> BlendplanError:
    return BlendplanError(
        f"{path} is a symbolic link, which is not written through; remove it, or give the path "
        "of the file itself"
    )


@contextmanager
def replacing_ours(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all, and leave nothing that the next session would not reuse.

    Unlike in `blendplan.whole_file.replacing`, the temporary name is always the same: a session
    that is killed in between leaves a file behind, which the next one overwrites.

    Raises:
        BlendplanError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        # Whatever is at that name is not written through: it may be a link to somebody's file.
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise BlendplanError(
            f"cannot write {path}: {os.strerror(error.errno or 0).lower()}; fix that, "
            f"or choose another place"
        ) from error
    except BaseException:
        _remove(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    """Make sure that a file's new name survives a power failure, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
