"""Opening a request file: what kind it is, its lines in blocks, its checksum, how far we are."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from blendplan.errors import BlendplanError
from blendplan.names import near

Progress = Callable[[int, int], None]

BLOCK_BYTES = 8 << 20
LONGEST_LINE_BYTES = 256 << 20  # longer is not a request but a file without line ends
_HEAD_BYTES = 4096
_UTF8_BOM = b"\xef\xbb\xbf"
_TABLE_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow-stream",
}
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow-stream"),
)
# By name, since any text may be one; what begins as JSON is none.
_CSV_NAME = re.compile(r"\.[ct]sv(\.gz)?$", re.IGNORECASE)
_ARRAY = re.compile(rb"\s*\[\s*\{")
_ENTRIES_AT_ONCE = 4096
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"PARE", "an encrypted Parquet file"),
    (b"FEA1", "a Feather file of version 1"),
    (b"SQLite format 3\x00", "a database"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


class Source:
    """An open request file.

    Attributes:
        path: where it lies.
        name: as messages name it; the path, unless the caller gives another one.
        kind: ``jsonl``, ``gzip`` or ``zstd`` (of JSONL), ``csv``, ``parquet``, ``arrow``,
            ``arrow-stream``.
        unit: what one request of this file is called in messages.
        total_bytes: size of the file, 0 for a pipe.

    Use as a context manager. Pipes can be read when they carry lines.

    Raises:
        BlendplanError: missing, a folder, not permitted, empty, or of a kind that is not read here.
    """

    def __init__(
        self, path: Path | str, progress: Progress | None = None, name: str | None = None
    ) -> None:
        self.path = Path(path)
        self._name = name
        self._file = _open(self.path)
        try:
            self.total_bytes = os.fstat(self._file.fileno()).st_size
            head = self._file.peek(_HEAD_BYTES)[:_HEAD_BYTES]  # type: ignore[attr-defined]
            self.kind = _kind(self.path, self.name, head)
            is_array = self.kind == "jsonl" and _ARRAY.match(head.removeprefix(_UTF8_BOM))
            self.unit = "row" if self.is_table else "entry" if is_array else "line"
        except BaseException:
            self._file.close()
            raise
        self._progress = progress
        self._digest = hashlib.sha256()
        self._done = 0

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def name(self) -> str:
        """The path as it may stand in a one-line message."""
        text = self._name or str(self.path)
        return text if text.isprintable() else repr(text)

    @property
    def is_table(self) -> bool:
        """Whether the file holds columns, not lines."""
        return self.kind in ("csv", "parquet", "arrow", "arrow-stream")

    def line_blocks(self) -> Iterator[bytes]:
        """The text in blocks of whole lines, decompressed; every line but the last has its end.

        A JSON array of objects becomes a line for each.

        Raises:
            BlendplanError: damaged or truncated compression, binary content, an endless line.
        """
        pieces = self._text_pieces()
        first = next(pieces, b"").removeprefix(_UTF8_BOM)
        self._refuse_binary(first[:_HEAD_BYTES])
        if _ARRAY.match(first[:_HEAD_BYTES]):
            yield from self._array_blocks(b"".join([first, *pieces]))
        else:
            yield from self._whole_lines(chain([first], pieces))

    def _array_blocks(self, text: bytes) -> Iterator[bytes]:
        """The entries of a JSON array, one line each."""
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":  # lines after all, of which the first is a list
                yield text
                return
            place = f"line {error.lineno}, column {error.colno}"
            raise BlendplanError(
                f"{self.name} begins as a JSON array but is none ({error.msg.lower()} at {place}); "
                "write it again, or give one JSON object per line"
            ) from None
        except (ValueError, RecursionError) as error:  # not UTF-8, or nested too deeply
            reason = str(error).split(";")[0][:120]
            raise BlendplanError(
                f"{self.name} begins as a JSON array but cannot be read ({reason}); "
                "give one JSON object per line"
            ) from None
        for start in range(0, len(entries), _ENTRIES_AT_ONCE):
            some = entries[start : start + _ENTRIES_AT_ONCE]
            yield b"".join(
                json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
                for entry in some
            )

    def _whole_lines(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        pending: list[bytes] = []
        pending_bytes = 0
        for piece in pieces:
            end = piece.rfind(b"\n") + 1
            if end:
                yield b"".join([*pending, piece[:end]])
                pending, pending_bytes = [], 0
                piece = piece[end:]
            pending.append(piece)
            pending_bytes += len(piece)
            if pending_bytes > LONGEST_LINE_BYTES:
                raise BlendplanError(
                    f"{self.name}: a line is longer than {LONGEST_LINE_BYTES >> 20} MiB; "
                    "give one JSON object per line"
                )
        if pending_bytes:
            yield b"".join(pending)

    def sha256(self) -> str:
        """Digest of the whole file, of the bytes as they lie on the disk."""
        while self._read(BLOCK_BYTES):
            pass
        return self._digest.hexdigest()

    def advance(self, done_bytes: int) -> None:
        """Report progress to the caller."""
        if self._progress is not None:
            self._progress(done_bytes, self.total_bytes)

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        self._done += len(data)
        return data

    def _text_pieces(self) -> Iterator[bytes]:
        """Decompressed bytes in pieces of any size but 0."""
        try:
            stream: Any = _PullReader(self._read)
            if self.kind != "jsonl":
                stream = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), self.kind)
            while piece := stream.read(BLOCK_BYTES):
                self.advance(self._done)
                yield piece
        except (OSError, pa.ArrowException) as error:
            reason = str(error).split("\n")[0]
            hint = "it may be truncated; fetch or write it again"
            raise BlendplanError(f"{self.name}: cannot be read ({reason}); {hint}") from error

    def _refuse_binary(self, head: bytes) -> None:
        if b"\0" in head or _kind_by_magic(head) not in (None, self.kind):
            raise BlendplanError(
                f"{self.name} is not text; give JSONL (plain, .gz or .zst), Parquet or Arrow"
            )


class _PullReader:
    """What Arrow asks of a Python file it reads from."""

    closed = False

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise BlendplanError(f"{path} is a folder; give the path of a request file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise BlendplanError(f"{str(path)!r} does not exist{_similar(path)}") from error
    except PermissionError as error:
        raise BlendplanError(f"{path}: permission denied; make the file readable") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise BlendplanError(
            f"{str(path)!r} cannot be opened ({reason}); check the path"
        ) from error
    except ValueError as error:
        if isinstance(error, BlendplanError):
            raise
        raise BlendplanError(f"{str(path)!r} is not a path ({error}); check it") from error


def _similar(path: Path) -> str:
    try:
        names = [entry.name for entry in islice(os.scandir(path.parent), 1000)]
    except OSError:
        return "; its folder does not exist either, check the path"
    close = near(path.name, names, 1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else "; check the path"


def _kind(path: Path, name: str, head: bytes) -> str:
    """Kind by content; the suffix only tells what a damaged file should have been."""
    if not head:
        raise BlendplanError(f"{name} is empty; give at least one request")
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise BlendplanError(
                f"{name} is {what}; give JSONL (plain, .gz or .zst) in UTF-8, Parquet or Arrow"
            )
    kind = _kind_by_magic(head)
    if _CSV_NAME.search(path.name) and kind in (None, "gzip") and head.lstrip()[:1] not in b"{[":
        return "csv"
    meant = _TABLE_SUFFIXES.get(path.suffix.lower())
    if kind is None and meant is not None:
        raise BlendplanError(
            f"{name} is named {path.suffix} but does not begin like one; "
            "it may be damaged, or JSONL that needs the suffix .jsonl"
        )
    return kind or "jsonl"


def _kind_by_magic(head: bytes) -> str | None:
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
