"""`replacing`: write a file whole or not at all; `made_folder`: a folder to write into."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blendplan.errors import BlendplanError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file is too large for this place; choose another one",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; change the permissions or choose another place",
    errno.EPERM: "not permitted; change the permissions or choose another place",
    errno.EIO: "the disk reports an input/output error; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "its folder has gone or takes no files; choose another place",
    errno.ENOTDIR: "a part of the path is not a folder; choose another place",
    errno.ELOOP: "the path is a loop of links; choose another place",
}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without error.

    On any exception, an interrupt included, the temporary file is removed and a file that was at
    `path` stays as it was. The temporary name keeps the suffix of `path`, for writers that choose
    the format by it. A device or pipe (``/dev/stdout``) is handed out as it is, and a symbolic link
    is followed.

    Raises:
        BlendplanError: the folder is missing, the path is a folder, or the file cannot be written
            (permissions, full disk, ...), whichever way the block writes it.
    """
    path = Path(path)
    _refuse_hopeless(path)
    if path.exists() and not path.is_file():
        with _naming(path, path):
            yield path
        return
    target = Path(os.path.realpath(path))
    # The name is cut so that a name of the longest length the file system takes still works.
    marker = f".{secrets.token_hex(4)}.partial{target.suffix[:32]}"
    temporary = target.with_name(f".{target.stem[:32]}{marker}")
    try:
        with _naming(path, temporary):
            mode = target.stat().st_mode & 0o777 if target.exists() else 0o666
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
            yield temporary
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def made_folder(path: Path) -> Path:
    """A folder, made with those above it where it is not there.

    Raises:
        BlendplanError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or "it cannot be made").lower()
        raise BlendplanError(f"folder {path}: {reason}; choose another place") from None
    return path


def _refuse_hopeless(path: Path) -> None:
    """Say before any work what would only fail at its end."""
    try:
        if "\0" in str(path):
            raise ValueError("it holds a null character")
        if path.is_dir():
            raise BlendplanError(f"cannot write {path}: it is a folder; give the path of a file")
        if not path.parent.is_dir():
            what = "is not a folder" if path.parent.exists() else "does not exist"
            raise BlendplanError(
                f"cannot write {path}: the folder {path.parent} {what}; "
                "create it first or choose another place"
            )
        if path.exists() and not os.access(path, os.W_OK):
            raise BlendplanError(
                f"cannot write {path}: the file there is read-only; "
                "change its permissions or choose another place"
            )
    except (OSError, ValueError) as error:
        if isinstance(error, BlendplanError):
            raise
        raise BlendplanError(f"cannot write {str(path)!r}: {_reason(error)}") from error


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Turn an `OSError` about the temporary file into one line about `path`."""
    try:
        yield
    except OSError as error:
        # Writers in C++ leave the file name out; an error with another name is not about ours.
        about_ours = error.filename in (None, str(temporary), temporary)
        if not about_ours or error.errno not in _REMEDIES:
            raise
        raise BlendplanError(f"cannot write {path}: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    """What went wrong and what to do, in words."""
    if isinstance(error, OSError):
        return _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return f"{error}; choose another name"
