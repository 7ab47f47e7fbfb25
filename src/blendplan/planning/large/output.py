"""The folder that a plan goes into: checked before the work, and never half a plan."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blendplan.errors import BlendplanError
from blendplan.planfile.folder import MANIFEST, part_names

REJECTS = "rejects.jsonl"
"""Where requests that are left out go, unless another place is named."""

_WORK = ".work-"


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """A folder for whatever tasks hand over, within the one that the plan goes into.

    It is removed at the end; what a killed run has left, at the next beginning. A new folder is
    removed too where nothing has come into it.

    Raises:
        BlendplanError: the folder cannot be made, or holds anything but an earlier plan.
    """
    check_folder(folder)
    try:
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"{_WORK}*"):
            shutil.rmtree(old, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BlendplanError(f"cannot write into {folder}: {reason}") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()  # which only an empty one lets happen


def check_folder(folder: Path) -> None:
    """Say before any work what would fail at its end.

    Raises:
        BlendplanError: as `working_in`.
    """
    if folder.is_dir():
        known = {MANIFEST, REJECTS, *(file.name for file in part_names(folder))}
        foreign = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.name not in known and not entry.name.startswith(_WORK)
        )
        if foreign:
            raise BlendplanError(
                f"cannot write into {folder}: it holds other files ({foreign[0]}); give a new or "
                "empty folder, or that of an earlier plan"
            )
    elif folder.exists():
        raise BlendplanError(f"cannot write into {folder}: it is a file; give a folder")
    elif not folder.parent.is_dir():
        raise BlendplanError(
            f"cannot write into {folder}: the folder {folder.parent} does not exist; create it "
            "first or choose another place"
        )
