"""The file of rejected requests: nothing that was left out of a plan is lost."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blendplan.errors import BlendplanError
from blendplan.whole_file import replacing


class Failing:
    """Rejects nothing: the first bad line or row ends the reading."""

    rejected = 0

    def __init__(self, source: str, unit: str) -> None:
        self._source = source
        self._unit = unit

    def __call__(self, row: int, reason: str, original: bytes) -> None:
        raise BlendplanError(f"{self._source}, {self._unit} {row + 1}: {reason}")


class Rejecting:
    """Writes each bad line or row with the reason as a JSON line.

    The keys are ``line`` or ``row`` (from 1), ``reason``, and ``original``, or
    ``original_base64`` where the line is not UTF-8.
    """

    def __init__(self, file: BinaryIO, unit: str) -> None:
        self._file = file
        self._unit = unit
        self.rejected = 0

    def __call__(self, row: int, reason: str, original: bytes) -> None:
        entry: dict[str, object] = {self._unit: row + 1, "reason": reason}
        try:
            entry["original"] = original.decode("utf-8")
        except UnicodeDecodeError:
            entry["original_base64"] = base64.b64encode(original).decode("ascii")
        self._file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n")
        self.rejected += 1


@contextmanager
def rejecting(path: Path, unit: str) -> Iterator[Rejecting]:
    """Open a rejects file; it appears at `path` when the block ends without error.

    It is written even when it stays empty, so that one from an earlier run cannot mislead.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield Rejecting(file, unit)
