"""`Journal`: the finished requests of a run on disk, so that a killed run can be continued.

The journal of ``results.jsonl`` is ``results.jsonl.journal``. Its first line says which run it
belongs to. The result lines follow it there when they will be put into input order at the end;
in the order in which requests finish they go to ``results.jsonl`` itself. Lines are only ever
appended, each with one write, so that whatever kills the process leaves whole lines and at most
one torn one at the end. The journal is removed when the run is complete: there is one exactly as
long as a run is unfinished.

A killed process loses nothing that was written. After a power failure the last second may be
missing (`FSYNC_EVERY_S`); those requests run again.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from blendplan.errors import BlendplanError

FSYNC_EVERY_S = 1.0
_FORMAT = 1
_LONGEST_HEADER = 1 << 16  # bytes; a longer first line is not ours

Order = Literal["input", "finish"]


class Journal:
    """Append-only result lines of one run; as a context manager, it lets go of its files.

    Args:
        output: the results file.
        order: order of the lines in the results file.
        identity: what the run is; a journal of another identity is refused.

    Attributes:
        damaged: numbers, from 1, of the lines that `resume` could not read.
    """

    def __init__(self, output: Path, order: Order, identity: Mapping[str, str]) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".journal")
        self.order = order
        self._identity = dict(identity)
        self._lock: IO[bytes] | None = None
        self._lines_file = -1
        self._synced_s = 0.0
        self._unsynced = False
        self._ours = False
        self.damaged: list[int] = []

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def lines_path(self) -> Path:
        """The file that result lines are appended to."""
        return self.path if self.order == "input" else self.output

    def begin(self) -> None:
        """Start a run that has nothing yet.

        Raises:
            BlendplanError: there are results or an unfinished run at this place.
        """
        if self.path.exists():
            raise BlendplanError(
                f"{self.path} is the journal of an unfinished run: continue it with --resume, or "
                f"delete it to start over"
            )
        if self.output.exists():
            raise BlendplanError(
                f"{self.output} exists; results are never overwritten: delete it or give another "
                f"output path"
            )
        header = {"blendplan_journal": _FORMAT, "order": self.order, **self._identity}
        with _replacing(self.path) as file:
            file.write(json.dumps(header).encode() + b"\n")
        self._open()
        self._ours = True

    def resume(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Continue an unfinished run: yields the offset and the content of each line it has.

        What a kill left at the end and is no whole line is cut off; the journal is open for
        appending when the iteration ends. A damaged line before the last is passed over and named:
        nothing but that one line is lost.

        Raises:
            BlendplanError: there is no journal, or it belongs to another run.
        """
        self._check_header()
        self._take_lock()
        end = 0
        if self.lines_path.exists():
            with self.lines_path.open("rb") as file:
                if self.lines_path == self.path:
                    end = len(file.readline())
                for number, raw in enumerate(file, start=2 if end else 1):
                    if not raw.endswith(b"\n"):
                        break  # torn off in the middle of its only write
                    line = _parsed(raw)
                    if line is None:
                        self.damaged.append(number)
                    else:
                        yield end, line
                    end += len(raw)
            os.truncate(self.lines_path, end)
        self._open()
        self._ours = True

    def append(self, lines: list[bytes]) -> list[int]:
        """Write result lines, each without its newline; their offsets in `lines_path`.

        Raises:
            BlendplanError: the disk is full, or refuses otherwise.
        """
        if not lines:
            return []
        place = os.lseek(self._lines_file, 0, os.SEEK_END)
        offsets = []
        for line in lines:
            offsets.append(place)
            place += len(line) + 1
        data = b"\n".join(lines) + b"\n"
        self._unsynced = True
        try:
            while data:
                data = data[os.write(self._lines_file, data) :]
        except OSError as error:
            raise BlendplanError(
                f"cannot write {self.lines_path}: {os.strerror(error.errno or 0).lower()}; make "
                f"that possible and continue the run with --resume"
            ) from error
        if time.monotonic() - self._synced_s >= FSYNC_EVERY_S:
            self.sync()
        return offsets

    def sync(self) -> None:
        """Make sure that everything written survives a power failure."""
        if self._unsynced:
            os.fsync(self._lines_file)
            self._unsynced = False
        self._synced_s = time.monotonic()

    def complete(self, offsets: list[int]) -> None:
        """Put the results where they belong and remove the journal.

        Args:
            offsets: offset in `lines_path` of each result line, in input order.
        """
        self.sync()
        if self.order == "input":
            with self.lines_path.open("rb") as journal, _replacing(self.output) as results:
                for offset in offsets:
                    journal.seek(offset)
                    results.write(journal.readline())
        self.path.unlink()
        self.path.with_name(self.path.name + ".partial").unlink(missing_ok=True)
        self.close()

    def rewrite(self, offsets: list[int]) -> list[int]:
        """Keep only the lines at these ascending offsets; their new offsets.

        A run that tries failed requests again drops their old error lines with it.
        """
        with self.lines_path.open("rb") as old, _replacing(self.lines_path) as new:
            if self.lines_path == self.path:
                new.write(old.readline())
            kept = []
            for offset in offsets:
                old.seek(offset)
                kept.append(new.tell())
                new.write(old.readline())
        self.close()
        self._open()
        return kept

    def discard(self) -> None:
        """Remove the journal of a run that never wrote a line; one that was refused stays."""
        if not self._ours:
            return
        if self.lines_path != self.path:
            self.lines_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files; the journal stays."""
        if self._lines_file >= 0:
            self.sync()
            os.close(self._lines_file)
            self._lines_file = -1
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open(self) -> None:
        self._take_lock()
        self._lines_file = os.open(self.lines_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = self.path.open("rb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise BlendplanError(
                f"{self.path} is in use: another replay writes to {self.output}; wait for it"
            ) from error
        self._lock = lock

    def _check_header(self) -> None:
        header: Any = None
        with suppress(OSError, ValueError, RecursionError), self.path.open("rb") as file:
            header = json.loads(file.readline(_LONGEST_HEADER))
        if not isinstance(header, dict) or header.get("blendplan_journal") != _FORMAT:
            raise BlendplanError(f"{self.path} is no journal of blendplan; delete it to start over")
        self._compare(header)

    def _compare(self, header: Mapping[str, Any]) -> None:
        for name, mine in {"order": self.order, **self._identity}.items():
            if header.get(name) != mine:
                raise BlendplanError(
                    f"{self.path} belongs to another run: its {name} is {header.get(name)!r}, "
                    f"this one's is {mine!r}; use that one, or delete the journal to start over"
                )


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
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
    except OSError as error:
        _remove(temporary)
        raise BlendplanError(
            f"cannot write {path}: {os.strerror(error.errno or 0).lower()}; fix that, "
            f"or choose another place"
        ) from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
