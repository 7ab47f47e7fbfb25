"""Requests that are left out of a plan: as columns, and in the file of rejects.

Nothing that was left out is lost. The columns go into the plan, so that a replay writes a line for
every request of the file; the file of rejects has the requests themselves.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.requests.columns import Requests, select
from blendplan.requests.rejects import REJECTED
from blendplan.whole_file import replacing

CONTEXT_LENGTH = "context_length_exceeded"
KV_CACHE = "kv_cache_exceeded"


class Refusal(NamedTuple):
    """Why one request cannot run.

    Attributes:
        row: index of the request.
        message: the reason, as a user reads it.
        code: the reason as one word.
        status: HTTP status with which an engine's server refuses it.
    """

    row: int
    message: str
    code: str
    status: int = 400


def leave_out(requests: Requests, refusals: Sequence[Refusal], rejects: Path) -> Requests:
    """The requests without those that are refused; these are added to a file of rejects.

    Args:
        requests: the requests.
        refusals: in the order of their rows, one for each row.
        rejects: JSON lines, added to where there are some from the same reading.
    """
    if not refusals:
        return requests
    before = rejects.read_bytes() if rejects.exists() else b""
    with replacing(rejects) as temporary, temporary.open("wb") as file:
        file.write(before)
        file.writelines(reject_lines(requests, refusals))
    return without(requests, refusals)


def without(requests: Requests, refusals: Sequence[Refusal]) -> Requests:
    """The requests without those that are refused, which are among its rejects. Args: as above."""
    if not refusals:
        return requests
    keep = np.ones(len(requests), dtype=np.bool_)
    keep[[refusal.row for refusal in refusals]] = False
    rejected = pa.concat_tables([requests.rejects, _columns(requests, refusals)])
    return replace(select(requests, np.flatnonzero(keep)), rejects=_in_file_order(rejected))


def where(requests: Requests, row: int) -> str:
    """A request as an error names it."""
    source, place = requests.place(int(requests.source_row[row]))
    return f"{source}, line {place + 1} (id {requests.ids[row].as_py()!r})"


def prompts(number: int, estimated: bool) -> str:
    """A prompt length in words."""
    return f"prompt of {'about ' if estimated else ''}{number:,} tokens"


def _columns(requests: Requests, refusals: Sequence[Refusal]) -> pa.Table:
    rows = np.array([refusal.row for refusal in refusals], dtype=np.int64)
    columns = [
        requests.source_row[rows],
        requests.ids.take(pa.array(rows)).cast(pa.string()),
        [refusal.status for refusal in refusals],
        [refusal.code for refusal in refusals],
        [refusal.message for refusal in refusals],
    ]
    fields = zip(columns, REJECTED.types, strict=True)
    return pa.table([pa.array(column, kind) for column, kind in fields], schema=REJECTED)


def _in_file_order(rejected: pa.Table) -> pa.Table:
    rows: NDArray[np.int64] = rejected.column("source_row").to_numpy()
    return rejected.take(pa.array(np.argsort(rows, kind="stable"))).combine_chunks()


def reject_lines(
    requests: Requests, refusals: Sequence[Refusal], name: str | None = None
) -> Iterator[bytes]:
    """A JSON line for each refusal, as `Rejecting` writes them; `name` is that of the file."""
    for refusal in refusals:
        row = refusal.row
        source, place = requests.place(int(requests.source_row[row]))
        of = source if requests.files else name
        entry: dict[str, object] = {} if of is None else {"file": of}
        entry["line"] = place + 1
        entry |= {"reason": refusal.message, "id": requests.ids[row].as_py()}
        if requests.bodies is not None and requests.bodies[row].is_valid:
            entry["original"] = requests.bodies[row].as_py().decode("utf-8")
        yield json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"
