"""First pass: request files to runs, which are sorted by prompt and small enough for memory."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.lengths.protocol import stated_lengths
from blendplan.offsets import offsets_of
from blendplan.planning.large.ids import write_id_hashes
from blendplan.planning.large.job import Job
from blendplan.planning.large.places import place_of
from blendplan.planning.large.spill import batch_of, rows_at_once, spilling
from blendplan.requests.blocks import Blocks
from blendplan.requests.collect import Block, Collector, with_ids
from blendplan.requests.columns import Requests
from blendplan.requests.context import check_context, over_context, within_context
from blendplan.requests.fitting import check_fits, over_kv_cache
from blendplan.requests.inputs import Input, local_copy
from blendplan.requests.lines import Reading
from blendplan.requests.read import tokens_of
from blendplan.requests.rejected import Refusal, reject_lines, where, without
from blendplan.requests.rejects import NO_REJECTS, Failing, Rejecting
from blendplan.requests.remarks import Remarks
from blendplan.requests.source import Source
from blendplan.requests.tokens import Tokens
from blendplan.tree.order import sorted_order


@dataclass(frozen=True)
class Run:
    """A file of requests sorted by prompt, equal prompts by place.

    Attributes:
        path: the file.
        id_hashes: a file of the sorted hashes of its ids.
        requests: how many there are.
        batch_bytes: prompts and bodies of each of its b batches; int64 [b].
        leader_tokens, leader_offsets: the first prompt of each batch, as in `Requests`.
    """

    path: Path
    id_hashes: Path
    requests: int
    batch_bytes: NDArray[np.int64]
    leader_tokens: NDArray[np.int32]
    leader_offsets: NDArray[np.int64]


@dataclass(frozen=True)
class FileRead:
    """What was found in one file.

    Attributes:
        sha256: of its bytes.
        unit: what a request of it is called.
        rows: its lines or rows, bad and blank ones included.
        unknown: requests that state no output length.
        rejected: what was left out, with places for rows; rows of `REJECTED`.
        estimated: whether any prompt went through the built-in estimate.
        bodiless: whether any request is no more than its prompt and limits.
        columns: of a table that are carried; None for lines.
    """

    sha256: str
    unit: str
    rows: int
    unknown: int
    rejected: pa.Table
    estimated: bool
    bodiless: bool
    columns: pa.Schema | None = None


@dataclass(frozen=True)
class GroupRead:
    """What was found in some files that follow each other: each, their runs, and remarks."""

    files: list[FileRead]
    runs: list[Run]
    remarks: Remarks


_EMPTY = sha256(b"").hexdigest()

Group = tuple[int, Sequence[Input]]
"""Number of the first of some files, and the files."""


def groups_of(inputs: Sequence[Input], group_bytes: int) -> list[Group]:
    """Neighbours that are read by one task: as many as have so many bytes, at least one."""
    firsts: list[int] = []
    held = group_bytes
    for number, one in enumerate(inputs):
        if held >= group_bytes:
            firsts.append(number)
            held = 0
        held += one.bytes
    return [(first, inputs[first:end]) for first, end in pairwise([*firsts, len(inputs)])]


def rejects_of(job: Job, first: int) -> Path:
    """Where a task that begins with some file leaves what it rejects."""
    return job.folder / f"rejects-{first:07d}.jsonl"


def read_group(job: Job, group: Group) -> GroupRead:
    """Read some files; see `Run`.

    Raises:
        BlendplanError: a file cannot be read, or unless bad requests are skipped, one is bad.
    """
    first, inputs = group
    seen = Remarks()
    tokens, _ = tokens_of(job.model_dir, seen)
    gathered = _Runs(job, first)
    files = []
    rejects: AbstractContextManager[BinaryIO | None] = nullcontext()
    if job.skip:
        rejects = rejects_of(job, first).open("wb")
    with rejects as lines:
        for number, one in enumerate(inputs, first):
            with local_copy(one, job.folder) as path:
                if path.is_file() and path.stat().st_size == 0:  # as some writers leave them
                    files.append(FileRead(_EMPTY, "line", 0, 0, NO_REJECTS, False, False))
                    continue
                with Source(path, name=one.shown) as source:
                    reader = _Reader(job, one, number, source, lines)
                    files.append(reader.read(tokens, seen, gathered))
    gathered.finish()
    return GroupRead(files, gathered.runs, seen)


class _Runs:
    """Blocks go in, sorted runs come out on disk."""

    def __init__(self, job: Job, first: int) -> None:
        self._job = job
        self._first = first
        self._collector = Collector()
        self.runs: list[Run] = []

    def add(self, block: Block) -> None:
        """Append requests whose ids are filled in and whose rows are places."""
        self._collector.add(block)
        if self._collector.bytes >= self._job.task_bytes:
            self.finish()

    def finish(self) -> None:
        """Write what there is as a run."""
        if not self._collector.bytes:
            return
        requests = self._collector.finish(None, "")
        self._collector = Collector()
        name = f"run-{self._first:07d}-{len(self.runs):05d}"
        self.runs.append(_write_run(requests, self._job.folder / name))


def _write_run(requests: Requests, stem: Path) -> Run:
    order, _ = sorted_order(requests.token_ids, requests.offsets)
    step = rows_at_once(requests)
    path, hashes = stem.with_suffix(".arrow"), stem.with_suffix(".ids.npy")
    sizes = []
    with spilling(path) as writer:
        for start in range(0, len(order), step):
            batch = batch_of(requests, order[start : start + step])
            sizes.append(batch.column("prompt").nbytes + batch.column("body").nbytes)
            writer.write_batch(batch)
    write_id_hashes(requests.ids, hashes)
    leaders = [requests.prompt(int(row)) for row in order[::step]]
    return Run(
        path,
        hashes,
        len(requests),
        np.array(sizes, np.int64),
        np.concatenate(leaders),
        offsets_of(np.array([len(leader) for leader in leaders], np.int64)),
    )


class _Reader:
    """Reads one file of a group."""

    def __init__(
        self, job: Job, one: Input, number: int, source: Source, lines: BinaryIO | None
    ) -> None:
        self._job, self._one, self._number = job, one, number
        self._source, self._lines = source, lines
        self._rejected = [NO_REJECTS]
        self._unknown = 0
        self._estimated = self._bodiless = False

    def read(self, tokens: Tokens, seen: Remarks, gathered: _Runs) -> FileRead:
        """All good requests go to `gathered`."""
        source, one = self._source, self._one
        reject: Failing | Rejecting = Failing(source.name, source.unit)
        if self._lines is not None:
            reject = Rejecting(self._lines, source.unit, one.shown, one.id_prefix)
        blocks = Blocks(source, Reading(tokens, reject, seen, self._job.shape))
        for block in blocks:
            for good in self._screened(block):
                gathered.add(good)
        rejected = pa.concat_tables([reject.columns(), *self._rejected])
        return FileRead(
            sha256=source.sha256(),
            unit=source.unit,
            rows=blocks.rows,
            unknown=self._unknown,
            rejected=self._placed(rejected),
            estimated=self._estimated,
            bodiless=self._bodiless,
            columns=blocks.columns,
        )

    def _screened(self, block: Block) -> Iterator[Block]:
        """The requests of a block that can run, by their places."""
        requests = _requests_of(block, self._source.name, self._one.id_prefix)
        requests = self._fitting(requests)
        if not len(requests):
            return
        unknown = np.flatnonzero(stated_lengths(requests) < 0)
        if len(unknown) and self._job.how.lengths == "known":
            raise BlendplanError(
                f"{where(requests, int(unknown[0]))} states no output_tokens; add it, or predict "
                "lengths in another way than 'known'"
            )
        self._unknown += len(unknown)
        self._estimated |= block.estimated
        self._bodiless |= requests.bodies is None or requests.bodies.null_count > 0
        yield Block(
            ids=requests.ids,
            source_row=place_of(self._number, requests.source_row),
            token_ids=requests.token_ids,
            lengths=np.diff(requests.offsets),
            output_tokens=requests.output_tokens,
            max_tokens=requests.max_tokens,
            bodies=requests.bodies,
            estimated=block.estimated,
            answers=requests.answers,
        )

    def _fitting(self, requests: Requests) -> Requests:
        """Without those that can never run, where bad requests are skipped."""
        longest = self._job.target.max_model_len
        longest = self._job.target.longest_request
        if self._lines is None:
            check_context(requests, longest)
            requests = within_context(requests, longest)
            check_fits(requests, longest)
            return requests
        requests = self._without(requests, over_context(requests, longest))
        requests = within_context(requests, longest)
        return self._without(requests, over_kv_cache(requests, longest))

    def _without(self, requests: Requests, refusals: Sequence[Refusal]) -> Requests:
        if not refusals or self._lines is None:
            return requests
        self._lines.writelines(reject_lines(requests, refusals, self._one.shown))
        kept = without(requests, refusals)
        self._rejected.append(kept.rejects)
        return replace(kept, rejects=NO_REJECTS)

    def _placed(self, rejected: pa.Table) -> pa.Table:
        places = place_of(self._number, rejected.column("source_row").to_numpy())
        return rejected.set_column(0, rejected.schema.field(0), pa.array(places))


def _requests_of(block: Block, name: str, id_prefix: str) -> Requests:
    """A block by itself, missing ids filled in."""
    block = with_ids(block, id_prefix)
    return Requests(
        ids=block.ids,
        source_row=block.source_row,
        token_ids=block.token_ids,
        offsets=offsets_of(block.lengths),
        output_tokens=block.output_tokens,
        max_tokens=block.max_tokens,
        bodies=block.bodies,
        estimated_tokens=block.estimated,
        source=name,
        answers=block.answers,
    )
