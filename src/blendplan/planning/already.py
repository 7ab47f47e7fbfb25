"""`leave_aside`: the requests that an earlier plan or earlier results have not dealt with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blendplan.errors import BlendplanError
from blendplan.planfile.opened import open_plan
from blendplan.planfile.plan import Plan
from blendplan.printable import printable
from blendplan.requests.batch_output import failed, named, output_lines
from blendplan.requests.columns import Requests, select
from blendplan.requests.record import BadRecordError

_ARROW = b"ARROW1"


def leave_aside(requests: Requests, files: Sequence[Path]) -> Requests:
    """The requests that are in none of the files.

    Args:
        requests: all of them.
        files: plans, of which all requests count, and results, of which those with an answer do.

    Raises:
        BlendplanError: a file that is neither, one that has none of the requests, or none is left.
    """
    done = np.zeros(len(requests), np.bool_)
    for path in files:
        here = pc.is_in(requests.ids, value_set=_ids(path)).to_numpy(zero_copy_only=False)
        if not here.any():
            raise BlendplanError(
                f"no request that {printable(str(path))} plans or answers is among these requests; "
                "give the plan or the results of an earlier part of this job"
            )
        done |= here
    if done.all():
        raise BlendplanError(
            f"all {len(requests):,} requests are planned or answered already; nothing is left to "
            "plan"
        )
    return select(requests, np.flatnonzero(~done))


def _ids(path: Path) -> pa.Array:
    """Ids of the requests that a plan has, or that results have an answer to."""
    if path.is_dir():
        opened = open_plan(path)
        columns = [opened.part(number).table.column("request_id") for number in range(len(opened))]
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks]).cast(
            pa.large_string()
        )
    if _is_arrow(path):
        return Plan.read(path).table.column("request_id").cast(pa.large_string())
    found = []
    for number, line in output_lines(path):
        try:
            if not failed(line):
                found.append(named(line))
        except BadRecordError as error:
            raise BlendplanError(f"{printable(str(path))}, line {number}: {error}") from error
    return pa.array(found, pa.large_string())


def _is_arrow(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ARROW)) == _ARROW
    except OSError:  # whoever reads it says what is wrong
        return False
