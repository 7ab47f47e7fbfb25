"""Output paths: checked before the work begins, not after it."""

import os
from collections.abc import Iterable
from pathlib import Path

from blendplan.errors import BlendplanError
from blendplan.whole_file import replacing


class _EnoughSeenError(Exception):
    """Ends the trial."""


def check_destinations(
    outputs: Iterable[Path | None], *, inputs: Iterable[Path | None] = ()
) -> None:
    """Raise what writing to the outputs would raise after the work, and leave nothing behind.

    Args:
        outputs: where files will go; None for nowhere.
        inputs: files that the command reads and must not replace.

    Raises:
        BlendplanError: a path cannot be written, is one of the inputs, or is given twice.
    """
    taken = {os.path.realpath(path): "it is an input" for path in inputs if path}
    for path in outputs:
        if path is None:
            continue
        conflict = taken.get(os.path.realpath(path))
        if conflict and (path.is_file() or not path.exists()):
            raise BlendplanError(f"cannot write {path}: {conflict}; choose another output path")
        taken[os.path.realpath(path)] = "another output goes there"
        try:
            with replacing(path):
                raise _EnoughSeenError
        except _EnoughSeenError:
            pass
