"""What the first pass found in all files together: runs, rejects, and ids that must be unique."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.planning.large.ids import Repeated, repeated
from blendplan.planning.large.job import Job
from blendplan.planning.large.places import file_of, row_of, rows_over_all
from blendplan.planning.large.reading import FileRead, Group, GroupRead, Run, rejects_of
from blendplan.printable import show
from blendplan.requests.inputs import Input, inputs_sha256
from blendplan.requests.rejects import INVALID, REJECTED
from blendplan.requests.remarks import Remarks
from blendplan.requests.source_columns import joined_columns
from blendplan.whole_file import replacing


@dataclass(frozen=True)
class Gathered:
    """All files as they were read.

    Attributes:
        inputs: the files.
        files: what was found in each.
        runs: of all requests, in the order of their places.
        dropped: places of requests that repeat an id, rising; int64.
        rejected: what is left out, these included; rows of `REJECTED`, in the order of all files.
        remarks: what a reader should know.
    """

    inputs: Sequence[Input]
    files: Sequence[FileRead]
    runs: Sequence[Run]
    dropped: NDArray[np.int64]
    rejected: pa.Table
    remarks: Remarks

    @property
    def requests(self) -> int:
        """How many there are to plan."""
        return sum(run.requests for run in self.runs) - len(self.dropped)

    @property
    def unknown(self) -> int:
        """How many of all that were read state no output length."""
        return sum(file.unknown for file in self.files)

    @property
    def estimated(self) -> bool:
        """Whether prompts are estimates."""
        return any(file.estimated for file in self.files)

    @property
    def columns(self) -> pa.Schema | None:
        """Columns of the tables that are carried, None for lines or where types do not agree."""
        return joined_columns([file.columns for file in self.files])

    @property
    def file_rows(self) -> list[int]:
        """Rows of each file."""
        return [file.rows for file in self.files]

    @property
    def sha256(self) -> str:
        """See `inputs_sha256`."""
        return inputs_sha256([file.sha256 for file in self.files])


def gather_groups(
    job: Job,
    inputs: Sequence[Input],
    groups: Sequence[Group],
    read: Iterable[GroupRead],
    rejects: Path,
) -> Gathered:
    """Put together what was read of all files, as it comes in.

    Args:
        job: how.
        inputs: the files.
        groups: how they were read.
        read: what was found in each group.
        rejects: where requests that are left out go.

    Raises:
        BlendplanError: an id that is not unique, files that do not go together, or no request.
    """
    files: list[FileRead] = []
    runs: list[Run] = []
    remarks = Remarks()
    for one in read:
        files += one.files
        runs += one.runs
        remarks.join(one.remarks)
    _check_kinds(inputs, files)
    later = repeated([run.id_hashes for run in runs], [run.path for run in runs])
    if later and not job.skip:
        raise BlendplanError(_said(later[0], later[0].place, inputs, files))
    tables = [file.rejected for file in files]
    if job.skip:
        _write_rejects(job, groups, later, inputs, files, rejects)
        tables.append(_columns(later, inputs, files))
    dropped = np.array([one.place for one in later], np.int64)
    gathered = Gathered(
        inputs, files, runs, dropped, _in_order(pa.concat_tables(tables), files), remarks
    )
    if not gathered.requests:
        shown = inputs[0].shown if len(inputs) == 1 else f"{len(inputs)} files"
        if gathered.rejected.num_rows:
            raise BlendplanError(
                f"{shown}: none of {gathered.rejected.num_rows} requests is a good one; the "
                f"reasons are in {rejects}"
            )
        raise BlendplanError(f"{shown} hold no request; give at least one")
    return gathered


def _check_kinds(inputs: Sequence[Input], files: Sequence[FileRead]) -> None:
    """Token ids that stand for text need the text with every request."""
    estimated = next((n for n, file in enumerate(files) if file.estimated), None)
    bodiless = next((n for n, file in enumerate(files) if file.bodiless), None)
    if estimated is not None and bodiless is not None:
        raise BlendplanError(
            f"{inputs[estimated].shown} holds text, whose tokens are only estimated, and "
            f"{inputs[bodiless].shown} holds token ids; give --model DIR with a tokenizer, or plan "
            "them by themselves"
        )


def _said(one: Repeated, place: int, inputs: Sequence[Input], files: Sequence[FileRead]) -> str:
    return (
        f"{_where(place, inputs, files)}: the id {show(one.id)} is that of "
        f"{_where(one.earlier, inputs, files)} already; ids must be unique over all files"
    )


def _where(place: int, inputs: Sequence[Input], files: Sequence[FileRead]) -> str:
    file, row = _split(place)
    return f"{inputs[file].shown}, {files[file].unit} {row + 1}"


def _split(place: int) -> tuple[int, int]:
    places = np.array([place], np.int64)
    return int(file_of(places)[0]), int(row_of(places)[0])


def _columns(
    later: Sequence[Repeated], inputs: Sequence[Input], files: Sequence[FileRead]
) -> pa.Table:
    columns = [
        [one.place for one in later],
        [one.id for one in later],
        [400] * len(later),
        [INVALID] * len(later),
        [_said(one, one.place, inputs, files).partition(": ")[2] for one in later],
    ]
    fields = zip(columns, REJECTED.types, strict=True)
    return pa.table([pa.array(column, kind) for column, kind in fields], schema=REJECTED)


def _in_order(rejected: pa.Table, files: Sequence[FileRead]) -> pa.Table:
    """With rows over all files in place of places, in their order."""
    rows = rows_over_all(rejected.column("source_row").to_numpy(), [file.rows for file in files])
    rejected = rejected.set_column(0, rejected.schema.field(0), pa.array(rows))
    return rejected.take(pa.array(np.argsort(rows, kind="stable"))).combine_chunks()


def _write_rejects(
    job: Job,
    groups: Sequence[Group],
    later: Sequence[Repeated],
    inputs: Sequence[Input],
    files: Sequence[FileRead],
    rejects: Path,
) -> None:
    """One file of all that the tasks rejected, and of ids that are not unique."""
    with replacing(rejects) as temporary, temporary.open("wb") as out:
        for first, _ in groups:
            out.write(rejects_of(job, first).read_bytes())
        for one in later:
            file, row = _split(one.place)
            entry: dict[str, object] = {"file": inputs[file].shown, files[file].unit: row + 1}
            entry["reason"] = _said(one, one.place, inputs, files).partition(": ")[2]
            entry["id"] = one.id
            if one.body is not None:
                entry["original"] = one.body.decode("utf-8")
            out.write(json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n")
