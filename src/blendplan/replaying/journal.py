"""`Journal`: the finished requests of a run on disk, so that a killed run can be continued.

The journal of ``results.jsonl`` is ``results.jsonl.journal``. Its first line says which run it
belongs to. The result lines follow it there when they will be put into input order at the end, or
into a table; in the order in which requests finish they go to ``results.jsonl`` itself. Lines are
only ever appended, each with one write, so that whatever kills the process leaves whole lines and
at most one torn one at the end. The journal is removed when the run is complete: there is one
exactly as long as a run is unfinished.

A killed process loses nothing that was written. After a power failure the last second may be
missing (`FSYNC_EVERY_S`); those requests run again.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.replaying.own_files import open_regular, refuse_link, replacing_ours
from blendplan.requests.output_table import SUFFIXES

FSYNC_EVERY_S = 1.0
_FORMAT = 1
_LONGEST_HEADER = 1 << 16  # bytes; a longer first line is not ours

Order = Literal["input", "finish"]
WriteLines = Callable[[Iterator[bytes], IO[bytes]], None]
"""Writes result lines, each with its line end, to the file of the results."""


def write_lines(lines: Iterator[bytes], file: IO[bytes]) -> None:
    """Write result lines as they are."""
    file.writelines(lines)


def journal_path(output: Path) -> Path:
    """Where the journal of a results file lies while its run is unfinished."""
    return output.with_name(f"{output.name}.journal")


class Journal:
    """Append-only result lines of one run; as a context manager, it lets go of its files.

    Args:
        output: the results file.
        order: order of the lines in the results file.
        identity: what the run is; a journal of another identity is refused.

    Attributes:
        damaged: numbers, from 1, of the lines that `resume` could not read, or that answer no
            request of this run. `rewrite` moves them to ``.damaged`` beside the file.
    """

    def __init__(self, output: Path, order: Order, identity: Mapping[str, str]) -> None:
        self.output = output
        self.path = journal_path(output)
        self.order = order
        self._identity = dict(identity)
        self._lock: IO[bytes] | None = None
        self._lines_file = -1
        self._synced_s = 0.0
        self._unsynced = False
        self._ours = False
        self.damaged: list[int] = []
        self._damaged_at: list[int] = []

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
        return self.path if self.order == "input" or self.is_table else self.output

    @property
    def is_table(self) -> bool:
        """Whether the results become a table when all of them are there."""
        return self.output.name.endswith(SUFFIXES)

    def begin(self) -> None:
        """Start a run that has nothing yet.

        Raises:
            BlendplanError: there are results or an unfinished run at this place.
        """
        for path in (self.path, self.output):
            refuse_link(path)
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
        with replacing_ours(self.path) as file:
            file.write(json.dumps(header).encode() + b"\n")
        self._open()
        self._ours = True

    def resume(
        self, row_of: Callable[[Mapping[str, Any]], int]
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Continue an unfinished run: yields offset, row and content of each line it has.

        What a kill left at the end and is no whole line is cut off; the journal is open for
        appending when the iteration ends. A damaged line before the last is passed over and named:
        nothing but that one line is lost.

        Args:
            row_of: the row that a line answers, below 0 where it answers none.

        Raises:
            BlendplanError: there is no journal, or it belongs to another run.
        """
        self._check_header()
        self._take_lock()
        end = ours = stranger = 0
        cut = False  # the last line ends before its line end, but is whole
        if os.path.lexists(self.lines_path):
            with os.fdopen(open_regular(self.lines_path, os.O_RDONLY), "rb") as file:
                if self.lines_path == self.path:
                    end = len(file.readline())
                for number, raw in enumerate(file, start=2 if end else 1):
                    line = _parsed(raw)
                    cut = not raw.endswith(b"\n")
                    if line is None and cut:
                        break  # torn off in the middle of its only write
                    row = -1 if line is None else row_of(line)
                    if line is not None and row >= 0:
                        ours += 1
                        yield end, row, line
                    else:
                        stranger = stranger or (0 if line is None else number)
                        self.damaged.append(number)
                        self._damaged_at.append(end)
                    end += len(raw)
        if stranger and not ours:
            raise BlendplanError(
                f"{self.lines_path} holds answers to other requests than those of this plan, in "
                f"line {stranger} for example; put it away and delete {self.path} to start over"
            )
        self._open()
        os.ftruncate(self._lines_file, end)
        if cut and line is not None:
            os.write(self._lines_file, b"\n")
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

    def lines(self, offsets: Iterable[int]) -> Iterator[bytes]:
        """Lines that were written, each with its line end, by their offsets in `lines_path`."""
        with self.lines_path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield file.readline()

    def sync(self) -> None:
        """Make sure that everything written survives a power failure."""
        if self._unsynced:
            os.fsync(self._lines_file)
            self._unsynced = False
        self._synced_s = time.monotonic()

    def complete(self, offsets: Iterable[int], write: WriteLines = write_lines) -> None:
        """Put the results where they belong and remove the journal.

        Args:
            offsets: offset in `lines_path` of each result line, in the order of the results.
            write: what makes the results of them.
        """
        self.sync()
        if self.lines_path == self.path:
            with replacing_ours(self.output) as results:
                write(self.lines(offsets), results)
        self.path.unlink()
        self.path.with_name(self.path.name + ".partial").unlink(missing_ok=True)
        self.close()

    def rewrite(self, offsets: Iterable[int]) -> list[int]:
        """Keep only the lines at these ascending offsets; their new offsets.

        A run that tries failed requests again drops their old error lines with it. Damaged lines
        are not dropped but moved, since they may be somebody's.
        """
        self._put_away_damaged()
        with self.lines_path.open("rb") as old, replacing_ours(self.lines_path) as new:
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

    def _put_away_damaged(self) -> None:
        if not self._damaged_at:
            return
        beside = self.lines_path.with_name(self.lines_path.name + ".damaged")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with (
            self.lines_path.open("rb") as old,
            os.fdopen(open_regular(beside, flags), "ab") as new,
        ):
            for offset in self._damaged_at:
                old.seek(offset)
                new.write(old.readline())
        self._damaged_at = []

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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._lines_file = open_regular(self.lines_path, flags)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.fdopen(open_regular(self.path, os.O_RDONLY), "rb")
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
        with os.fdopen(open_regular(self.path, os.O_RDONLY), "rb") as file:
            first = file.readline(_LONGEST_HEADER)
        with suppress(ValueError, RecursionError):
            header = json.loads(first)
        if not is_header(header) or header["blendplan_journal"] != _FORMAT:
            raise BlendplanError(
                f"{self.path} is no journal of blendplan, or its first line is damaged; put it "
                f"away to start over, and take answers from {self.lines_path} over with --already"
            )
        for name, mine in {"order": self.order, **self._identity}.items():
            seen = header.get(name)
            if seen != mine:
                raise BlendplanError(
                    f"{self.path} belongs to another run: its {name} is {show(seen, 200)}, this "
                    f"one's is {show(mine, 200)}; use that one, or put the journal away to start "
                    f"over"
                )


def is_header(line: object) -> bool:
    """Whether a parsed line is the first one of a journal."""
    return isinstance(line, dict) and "blendplan_journal" in line


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
