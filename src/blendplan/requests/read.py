"""`read_requests`: request files of any kind to `Requests`."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa

from blendplan.checks.arguments import function, whole
from blendplan.checks.arguments import path as argument_path
from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.blocks import Blocks
from blendplan.requests.collect import Block, Collector, with_ids
from blendplan.requests.columns import Requests, repeated_ids, select
from blendplan.requests.fingerprint import tokenizer_fingerprint
from blendplan.requests.inputs import inputs_sha256, names_several
from blendplan.requests.lines import Reading
from blendplan.requests.load_tokenizer import has_tokenizer
from blendplan.requests.media import Media
from blendplan.requests.rejects import NO_REJECTS, Failing, Rejecting
from blendplan.requests.remarks import Remarks
from blendplan.requests.request_files import STANDARD_INPUT, RequestFile, request_files
from blendplan.requests.shape import Shape
from blendplan.requests.source import Progress, Source
from blendplan.requests.source_columns import joined_columns
from blendplan.requests.tokenizer import Tokenizer
from blendplan.requests.tokens import Estimate, Tokens
from blendplan.requests.write import request_line
from blendplan.whole_file import replacing

SEVERAL_REJECTS = "requests.rejects.jsonl"
"""Where bad requests of several files, or of standard input, are written by default."""


def read_requests(
    path: Path | str | Sequence[Path | str],
    *,
    model_dir: Path | str | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    rejects: Path | str | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
    **shape: Any,
) -> Requests:
    """Read requests: JSONL or a JSON array (plain, gzip or zstd), CSV, Parquet, or Arrow IPC.

    Args:
        path: the request file, its kind told by its content; or several, folders, globs and
            addresses, see `find_inputs`, which are read as one; or ``-`` for standard input.
        model_dir: a model directory; when it holds a tokenizer, text becomes token ids through it,
            and messages through its chat template. Otherwise four UTF-8 bytes are counted as one
            token.
        on_error: ``fail`` raises at the first bad line; ``skip`` leaves bad lines out and writes
            them to `rejects`.
        rejects: where ``skip`` writes the bad lines, each with the reason; by default the name of
            the request file with ``.rejects.jsonl`` added, or `SEVERAL_REJECTS`.
        progress: called now and then with the bytes read and the size of the file.
        limit: lines or rows to look at, from the first one on; all by default.
        shape: what becomes of rows and lines that are not requests yet, or do not say all, as
            attributes of `Shape`: ``prompt_column``, ``template``, ``system``, ``chat``,
            ``id_column``, ``max_tokens`` and ``parameters``.

    Returns:
        all requests in the order of the files, ids unique. Where several are read, rows count over
        all of them, and a request that states no id is ``NAME:LINE``.

    Raises:
        BlendplanError: a file cannot be read, holds no request, or (with ``fail``) a bad one.
    """
    words = _words(path)
    if not isinstance(on_error, str) or on_error not in ("fail", "skip"):
        raise BlendplanError(f"on_error is {show(on_error)}; give 'fail' or 'skip'")
    if progress is not None:
        function("progress", progress)
    limit = None if limit is None else whole("limit", limit, 1)
    wanted = Shape.of("read_requests", shape)
    seen = Remarks()
    tokens, directory = tokens_of(model_dir, seen)
    bad = rejects_path(words, rejects)
    outcome: AbstractContextManager[BinaryIO | None] = nullcontext()
    if on_error == "skip":
        outcome = _writing(bad)
    with request_files(words) as files, outcome as rejected:
        reader = _Reader(tokens, seen, wanted, rejected, progress, limit)
        for one in files:
            if one.path.exists() and bad.exists() and bad.samefile(one.path):
                raise BlendplanError(
                    f"{bad} is the request file itself; write the rejects elsewhere"
                )
            reader.add(one)
        requests = reader.finish()
    if len(requests) == 0:
        if requests.rejected:
            first = requests.rejects.column("message")[0].as_py()
            reasons = f"the reasons are in {bad}" if bad.is_file() else f"the first: {first}"
            raise BlendplanError(
                f"{requests.source}: none of its {requests.rejected} {reader.unit}s is a good "
                f"request; {reasons}"
            )
        raise BlendplanError(f"{requests.source} holds no request; give at least one")
    return replace(
        requests,
        remarks=(*seen.lines(), *reader.cut_short()),
        tokenizer=None if directory is None else tokenizer_fingerprint(directory),
    )


def tokens_of(model_dir: Path | str | None, seen: Remarks) -> tuple[Tokens, Path | None]:
    """What turns text into tokens, and the directory of its tokenizer, if that is one."""
    if model_dir is None:
        return Estimate(), None
    directory = argument_path("model_dir", model_dir)
    if not directory.is_dir():
        raise BlendplanError(f"{directory} is not a folder; give the folder of a model")
    if has_tokenizer(directory):
        return Tokenizer(directory, seen), directory
    return Estimate(Media(directory)), None


def _words(path: object) -> list[Path | str]:
    """Paths as paths; words as they are, since they may be addresses."""
    given = path if isinstance(path, list | tuple) else [path]
    checked = [argument_path("path", word) for word in given]
    return [
        word if isinstance(word, str) else one for word, one in zip(given, checked, strict=True)
    ]


def rejects_path(words: Sequence[Path | str], rejects: Path | str | None) -> Path:
    """Where bad requests of these files go, as of `read_requests`."""
    if rejects is not None:
        return argument_path("rejects", rejects)
    if names_several(words) or str(words[0]) == STANDARD_INPUT:
        return Path(SEVERAL_REJECTS)
    path = Path(words[0])
    return path.with_name(f"{path.name}.rejects.jsonl")


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """Where bad requests go; it is written even when it stays empty, so that none can mislead."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield file


@dataclass(frozen=True)
class _File:
    """One file that was read: its first row over all files, and what was found in it."""

    name: str
    unit: str
    first_row: int
    reject: Failing | Rejecting
    sha256: str
    columns: pa.Schema | None


class _Reader:
    """Reads files one after the other into one set of requests.

    Attributes:
        unit: what a request of the last file is called.
    """

    def __init__(
        self,
        tokens: Tokens,
        seen: Remarks,
        shape: Shape,
        rejected: BinaryIO | None,
        progress: Progress | None,
        limit: int | None,
    ) -> None:
        self._tokens, self._seen, self._shape = tokens, seen, shape
        self._rejected, self._progress, self._limit = rejected, progress, limit
        self._collector: Collector | None = None
        self._files: list[_File] = []
        self._rows = 0
        self._source: Path | str | None = None
        self._estimated = self._bodiless = ""
        self.unit = "line"

    def add(self, one: RequestFile) -> None:
        """Read one file."""
        with Source(one.path, self._progress, one.name) as source:
            self.unit = source.unit
            reject: Failing | Rejecting = Failing(source.name, source.unit)
            if self._rejected is not None:
                name = one.name if one.id_prefix else None
                reject = Rejecting(self._rejected, source.unit, name, one.id_prefix)
            most = None if self._limit is None else self._limit - self._rows
            reading = Reading(self._tokens, reject, self._seen, self._shape)
            blocks = Blocks(source, reading, most)
            if self._collector is None:
                self._collector = Collector(blocks.expected_tokens, blocks.expected_body_bytes)
            for block in blocks:
                self._look(block, source.name)
                rows = block.source_row + self._rows
                self._collector.add(replace(with_ids(block, one.id_prefix), source_row=rows))
            self._source = one.name or one.path
            digest = source.sha256()
            self._files.append(
                _File(source.name, source.unit, self._rows, reject, digest, blocks.columns)
            )
            self._rows += blocks.rows

    def _look(self, block: Block, name: str) -> None:
        """Token ids that stand for text need the text with every request."""
        if block.estimated:
            self._estimated = self._estimated or name
        if block.bodies is None or block.bodies.null_count:
            self._bodiless = self._bodiless or name
        if self._estimated and self._bodiless and self._estimated != self._bodiless:
            raise BlendplanError(
                f"{self._estimated} holds text, whose tokens are only estimated, and "
                f"{self._bodiless} holds token ids; give a model's folder with a tokenizer, or "
                "plan them by themselves"
            )

    def cut_short(self) -> list[str]:
        """What to say where there may be more to read."""
        if self._limit is None or self._rows < self._limit:
            return []
        return [f"only the first {self._limit:,} {self.unit}s were looked at, as --limit says"]

    def finish(self) -> Requests:
        """All good requests, without those whose id an earlier one has."""
        files = self._files
        source = self._source if len(files) == 1 else f"{len(files)} files"
        collector = self._collector or Collector()
        requests = collector.finish(source, inputs_sha256([file.sha256 for file in files]))
        several = tuple((file.first_row, file.name) for file in files)
        requests = replace(
            requests,
            columns=joined_columns([file.columns for file in files]),
            files=several if len(files) > 1 else (),
        )
        requests = self._without_repeated(requests)
        return replace(requests, rejects=self._rejects())

    def _without_repeated(self, requests: Requests) -> Requests:
        """Reject every request whose id an earlier one has."""
        repeated = repeated_ids(requests.ids)
        if not repeated:
            return requests
        rows = requests.source_row
        for index, earlier in repeated.items():
            file, other = self._file_of(int(rows[index])), self._file_of(int(rows[earlier]))
            of = "" if file is other else f"{other.name}, "
            reason = (
                f"the id {show(requests.ids[index].as_py())} is that of {of}{other.unit} "
                f"{rows[earlier] - other.first_row + 1} already; ids must be unique (a missing one "
                f"is the number of the {file.unit})"
            )
            file.reject(int(rows[index]) - file.first_row, reason, request_line(requests, index))
        kept = np.delete(np.arange(len(requests), dtype=np.int64), list(repeated))
        return select(requests, kept)

    def _file_of(self, row: int) -> _File:
        return self._files[bisect_right(self._files, row, key=lambda file: file.first_row) - 1]

    def _rejects(self) -> pa.Table:
        """What was left out, by rows over all files."""
        tables = []
        for file in self._files:
            found = file.reject.columns()
            rows = found.column("source_row").to_numpy() + file.first_row
            tables.append(found.set_column(0, found.schema.field(0), pa.array(rows)))
        return pa.concat_tables(tables).combine_chunks() if tables else NO_REJECTS
