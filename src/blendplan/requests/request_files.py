"""`request_files`: the files that are read into memory as one set of requests.

Files in object storage and standard input are copied to a temporary folder first.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from blendplan.errors import BlendplanError
from blendplan.requests.inputs import find_inputs, local_copy, names_several

STANDARD_INPUT = "-"
_PIECE_BYTES = 1 << 20


class RequestFile(NamedTuple):
    """One file to read.

    Attributes:
        path: where it lies on this machine.
        name: as messages name it, None for its path.
        id_prefix: stands before the number of the line or row in the id of a request that states
            none.
    """

    path: Path
    name: str | None = None
    id_prefix: str = ""


@contextmanager
def request_files(words: Sequence[str | Path]) -> Iterator[Iterator[RequestFile]]:
    """The files that words name, one after the other, each there until the next one is asked for.

    Args:
        words: as of `find_inputs`; a single ``-`` is standard input.

    Raises:
        BlendplanError: a word that names no file, or one that cannot be copied.
    """
    if len(words) == 1 and str(words[0]) != STANDARD_INPUT and not names_several(words):
        yield iter([RequestFile(Path(words[0]))])
        return
    with ExitStack() as things:
        folder = Path(things.enter_context(tempfile.TemporaryDirectory(prefix="blendplan-")))
        if any(str(word) == STANDARD_INPUT for word in words):
            if len(words) > 1:
                raise BlendplanError("standard input (-) is read alone; leave out the other files")
            yield iter([RequestFile(_piped(folder), "standard input")])
        else:
            yield _copies([str(word) for word in words], folder)


def _copies(words: Sequence[str], folder: Path) -> Iterator[RequestFile]:
    for one in find_inputs(words):
        with local_copy(one, folder) as path:
            yield RequestFile(path, one.shown, one.id_prefix)


def _piped(folder: Path) -> Path:
    """What comes on standard input as a file."""
    if sys.stdin.isatty():
        raise BlendplanError("standard input is a terminal; pipe requests into the command")
    path = folder / "standard-input"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _PIECE_BYTES)
    return path
