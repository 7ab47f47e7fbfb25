"""`find_inputs`: the request files that paths, folders, globs and addresses name."""

import hashlib
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.source import BLOCK_BYTES, Source

_WILD = re.compile(r"[*?[]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Options of a file system, as in ``s3://bucket/path?region=us-east-1``.
_QUERY = re.compile(r"\?[a-z_]+=.*$")
# Of a plan in a folder: its manifest and its parts.
_MANIFEST, _PART = "manifest.json", re.compile(r"part-\d+-[0-9a-f]{8}\.arrow")
_HIDDEN = (".", "_")  # as other readers of folders of tables pass over


@dataclass(frozen=True)
class Input:
    """One request file.

    Attributes:
        name: its path below the folder that all inputs have in common.
        shown: as messages name it.
        place: its path in its file system.
        filesystem: that of pyarrow, which can be sent to other processes.
        bytes: its size.
        id_prefix: stands before the number of the line or row in the id of a request that states
            none.
    """

    name: str
    shown: str
    place: str
    filesystem: Any
    bytes: int
    id_prefix: str = ""


def names_several(words: Sequence[str | Path]) -> bool:
    """Whether words name more than one plain file on this machine: several, a folder, a glob, an
    address.
    """
    if len(words) != 1:
        return True
    path = Path(words[0])
    is_other = _WILD.search(str(words[0])) or _ADDRESS.match(str(words[0]))
    return path.is_dir() or (bool(is_other) and not path.exists())


def inputs_sha256(digests: Sequence[str]) -> str:
    """The digest of several request files: of one, its own; of more, that of their digests."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def find_inputs(words: Sequence[str]) -> list[Input]:
    """The files that words name, in the order of the words, those of a folder or glob by name.

    A word is a path, a folder (all files in it and below, but for names that begin with "." or
    "_"), a glob (``*``, ``?`` and ``[...]`` within a name, ``**`` for any number of folders), or
    the address of one of these in any file system that pyarrow opens (``s3://``, ``gs://``,
    ``file://``). A file that several words name counts once. Where a request states no id, it is
    ``NAME:LINE``, NAME being the path of its file below the folder that all words have in common;
    of a single file that is named as such, the number of the line alone, as in a plan of one file.

    Raises:
        BlendplanError: no word, one that matches no file, or a file system that does not answer.
    """
    if not words:
        raise BlendplanError("no request files; give a file, a folder, a glob or an address")
    found: dict[tuple[str, str], tuple[Input, str]] = {}
    for word in words:
        for one, base in _of_word(word):
            found.setdefault((one.filesystem.type_name, one.place), (one, base))
    common = _common([f"{one.filesystem.type_name}:{base}" for one, base in found.values()])
    inputs = []
    for one, _ in found.values():
        whole = f"{one.filesystem.type_name}:{one.place}"
        name = one.shown if common is None else posixpath.relpath(whole, common)
        inputs.append(replace(one, name=name, id_prefix=f"{name}:"))
    if len(words) == 1 and len(inputs) == 1 and inputs[0].shown == _without_options(words[0])[0]:
        inputs = [replace(inputs[0], id_prefix="")]
    return inputs


@contextmanager
def local_copy(one: Input, folder: Path) -> Iterator[Path]:
    """The file on this machine: itself where it lies here, else a copy for as long as it is used.

    Raises:
        BlendplanError: it cannot be read from where it lies.
    """
    if isinstance(one.filesystem, fs.LocalFileSystem):
        yield Path(one.place)
        return
    copy = folder / f"input-{os.getpid()}-{posixpath.basename(one.place)}"
    try:
        with _reaching(one.shown):
            fs.copy_files(one.place, str(copy), source_filesystem=one.filesystem)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def sha256_of(one: Input) -> str:
    """Digest of the bytes of a file.

    Raises:
        BlendplanError: it cannot be read from where it lies.
    """
    digest = hashlib.sha256()
    with (
        _reaching(one.shown),
        one.filesystem.open_input_stream(one.place, compression=None) as stream,
    ):
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _of_word(word: str) -> Iterator[tuple[Input, str]]:
    """The files of one word, each with the folder that the word stands on."""
    path, options = _without_options(word)
    fixed, pattern = _split(path)
    with _reaching(path, options):
        filesystem, place = _file_system(fixed, options)
        info = filesystem.get_file_info(place)
    if info.type == fs.FileType.File and not pattern:
        yield Input("", path, place, filesystem, info.size or 0), posixpath.dirname(place)
        return
    if info.type != fs.FileType.Directory:
        if not pattern and isinstance(filesystem, fs.LocalFileSystem):
            with Source(place):  # which says what is wrong, and what may be meant
                pass
        raise BlendplanError(f"{show(path)} names no file; check the path")
    matches = re.compile(_expression(pattern)).fullmatch if pattern else _is_not_hidden
    deep = not pattern or "/" in pattern
    with _reaching(path):
        entries = filesystem.get_file_info(fs.FileSelector(place, recursive=deep))
    sizes = {
        posixpath.relpath(entry.path, place): entry.size or 0
        for entry in entries
        if entry.type == fs.FileType.File
    }
    if _MANIFEST in sizes and any(map(_PART.fullmatch, sizes)):
        raise BlendplanError(f"{show(path)} is a plan; give the request files it was made from")
    kept = sorted(name for name in sizes if matches(name))
    if not kept:
        what = "matches no file" if pattern else "is a folder without request files"
        raise BlendplanError(f"{show(path)} {what}; check the path")
    for name in kept:
        shown = posixpath.join(fixed, name)
        yield Input("", shown, posixpath.join(place, name), filesystem, sizes[name]), place


def _without_options(word: str) -> tuple[str, str]:
    """A word as messages show it, and the options of its file system, which may be secrets."""
    query = _QUERY.search(word) if _ADDRESS.match(word) else None
    return (word[: query.start()], query[0]) if query else (word, "")


def _split(word: str) -> tuple[str, str]:
    """The part of a word before its first wild name, and the rest."""
    if not _WILD.search(word) or (not _ADDRESS.match(word) and Path(word).exists()):
        return word, ""
    names = word.split("/")
    first = next(place for place, name in enumerate(names) if _WILD.search(name))
    fixed = "/".join(names[:first])
    return fixed or ("/" if word.startswith("/") else "."), "/".join(names[first:])


def _file_system(fixed: str, options: str) -> tuple[Any, str]:
    if _ADDRESS.match(fixed):
        filesystem, place = fs.FileSystem.from_uri(fixed + options)
        return filesystem, place.rstrip("/") or "/"
    return fs.LocalFileSystem(), Path(fixed).absolute().as_posix()


def _expression(pattern: str) -> str:
    """A glob as a regular expression over paths below its folder; hidden names need their dot."""
    names = [
        r"(?:(?!\.)[^/]+/)*" if name == "**" else _of_name(name) + "/"
        for name in pattern.split("/")
    ]
    return "".join(names).removesuffix("/")


def _of_name(name: str) -> str:
    """One name of a glob, none of whose wild cards stands for a "/"."""
    pieces = re.split(r"(\*|\?|\[!?[^]]+\])", name)
    wild = {"*": "[^/]*", "?": "[^/]"}
    shown = r"(?!\.)" if _WILD.match(name) else ""
    return shown + "".join(
        wild.get(piece)
        or (f"[{piece[1:-1].replace('!', '^', 1)}]" if odd and piece else re.escape(piece))
        for odd, piece in zip(cycle((False, True)), pieces, strict=False)
    )


def _is_not_hidden(name: str) -> bool:
    return not any(part.startswith(_HIDDEN) for part in name.split("/"))


def _common(bases: list[str]) -> str | None:
    """The folder that all bases have in common, None for those of different file systems."""
    kinds = {base.partition(":")[0] for base in bases}
    return posixpath.commonpath(bases) if len(kinds) == 1 else None


@contextmanager
def _reaching(word: str, options: str = "") -> Iterator[None]:
    """Turn what a file system says of an address into one line, without its options."""
    try:
        yield
    except BlendplanError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).replace(options, "") if options else str(error)
        reason = (said.splitlines() or [type(error).__name__])[0][:200]
        raise BlendplanError(
            f"{show(word)} cannot be read ({reason}); check the address and the permissions"
        ) from None
