"""`Requests`: a request set as columns."""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.offsets import offsets_of
from blendplan.requests.fingerprint import TokenizerFingerprint
from blendplan.requests.gather import gather
from blendplan.requests.rejects import NO_REJECTS


@dataclass(frozen=True)
class Requests:
    """A set of n requests as columns, in file order.

    Attributes:
        ids: unique request ids, Arrow large_string [n].
        source_row: row of each request in its file, from 0; int64 [n].
        token_ids: all prompts one after the other; int32 [total].
        offsets: prompt i is ``token_ids[offsets[i]:offsets[i + 1]]``; int64 [n + 1].
        output_tokens: output length where the request states it, else -1; int32 [n]. Of a request
            with several answers it is the length of each.
        max_tokens: cap on the output length where the request states one, else -1; int32 [n].
        bodies: each request's own JSON, Arrow large_binary [n]; None when no request has one.
        estimated_tokens: True when ``token_ids`` come from the built-in four-bytes-a-token
            estimate, so that an engine must be given text instead.
        source: the file that was read, as messages name it; None for requests made in memory.
        sha256: hexadecimal digest of that file's bytes, empty for requests made in memory.
        rejects: lines or rows of it that were left out as bad, or because they never run; rows of
            `REJECTED`.
        answers: how many answers each request asks for, at least 1; int32 [n]. None where every
            request asks for one.
        remarks: what a reader should know of the file, one line each.
        tokenizer: the fingerprint of the tokenizer that made the token ids, None where none did.
        columns: those of the table that was read; None for lines.
        copies: how many identical requests each one answers besides itself, see `run_once`; int64
            [n], None where that was not asked for, or there are none.
        files: first row and name of each, where several files were read.
    """

    ids: pa.Array
    source_row: NDArray[np.int64]
    token_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    output_tokens: NDArray[np.int32]
    max_tokens: NDArray[np.int32]
    bodies: pa.Array | None = None
    estimated_tokens: bool = False
    source: Path | str | None = None
    sha256: str = ""
    rejects: pa.Table = field(default_factory=lambda: NO_REJECTS)
    answers: NDArray[np.int32] | None = None
    remarks: tuple[str, ...] = ()
    tokenizer: TokenizerFingerprint | None = None
    columns: pa.Schema | None = None
    files: tuple[tuple[int, str], ...] = ()
    copies: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row of all files, as messages name it, and its row there from 0."""
        if not self.files:
            return str(self.source or "the request set"), row
        number = bisect_right(self.files, row, key=lambda file: file[0]) - 1
        first, name = self.files[number]
        return name, row - first

    @property
    def rejected(self) -> int:
        """How many requests of the file were left out."""
        return int(self.rejects.num_rows)

    @property
    def prompt_tokens(self) -> NDArray[np.int32]:
        """Prompt length of each request in tokens; int32 [n]."""
        return np.diff(self.offsets).astype(np.int32)

    def prompt_tokens_of(self, requests: NDArray[np.int64]) -> NDArray[np.int32]:
        """Prompt length of some requests in tokens; int32 [len(requests)]."""
        return (self.offsets[requests + 1] - self.offsets[requests]).astype(np.int32)

    def prompt(self, request: int) -> NDArray[np.int32]:
        """Token ids of one prompt, a view; int32 [p]."""
        return self.token_ids[self.offsets[request] : self.offsets[request + 1]]


def repeated_ids(ids: pa.Array) -> dict[int, int]:
    """Requests whose id an earlier request has: {index: index of the first one}, in order."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return {}
    first: dict[str, int] = {}
    repeated = {}
    for index, name in enumerate(ids.to_pylist()):
        if first.setdefault(name, index) != index:
            repeated[index] = first[name]
    return repeated


def several(answers: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
    """The numbers of answers, None where all are one."""
    return None if answers is None or not (answers > 1).any() else answers


def without_lengths(requests: Requests) -> Requests:
    """The same requests, of whose output lengths nothing is known."""
    return replace(requests, output_tokens=np.full(len(requests), -1, np.int32))


def select(requests: Requests, rows: NDArray[np.int64]) -> Requests:
    """The requests at the given indices, in that order."""
    lengths = np.diff(requests.offsets)[rows]
    offsets = offsets_of(lengths)
    taken = pa.array(rows)
    return Requests(
        ids=requests.ids.take(taken),
        source_row=requests.source_row[rows],
        token_ids=gather(requests.token_ids, requests.offsets, rows, int(offsets[-1])),
        offsets=offsets,
        output_tokens=requests.output_tokens[rows],
        max_tokens=requests.max_tokens[rows],
        bodies=None if requests.bodies is None else requests.bodies.take(taken),
        estimated_tokens=requests.estimated_tokens,
        source=requests.source,
        sha256=requests.sha256,
        rejects=requests.rejects,
        answers=several(None if requests.answers is None else requests.answers[rows]),
        remarks=requests.remarks,
        tokenizer=requests.tokenizer,
        columns=requests.columns,
        files=requests.files,
        copies=None if requests.copies is None else requests.copies[rows],
    )
