"""Requests that planning left out, in the plan file: one column, whose first row lists them all.

So a plan stays one table that any Arrow tool reads, and a plan that left out nothing has no such
column. Each is compressed as the other columns are: a million take some 10 MB.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blendplan.errors import BlendplanError
from blendplan.planfile.columns import numbers
from blendplan.requests.rejects import NO_REJECTS, REJECTED

COLUMN = "rejected"
_TYPE = pa.list_(pa.struct(list(REJECTED)))
_STATUSES = (400, 599)


def described(rejected: pa.Table) -> dict[str, Any]:
    """What the metadata say of rejected requests; nothing where there are none."""
    if not rejected.num_rows:
        return {}
    codes = Counter(rejected.column("code").to_pylist())
    return {COLUMN: {"requests": rejected.num_rows, "codes": dict(sorted(codes.items()))}}


def with_column(table: pa.Table, rejected: pa.Table) -> pa.Table:
    """A plan's table as it is written: with the list in its first row, where it is not empty."""
    if not rejected.num_rows or not table.num_rows:
        return table
    whole = rejected.combine_chunks()
    columns = [whole.column(name).combine_chunks() for name in REJECTED.names]
    fields = [
        column.chunk(0) if isinstance(column, pa.ChunkedArray) else column for column in columns
    ]
    offsets = np.full(table.num_rows + 1, len(whole), dtype=np.int32)
    offsets[0] = 0
    others = np.arange(table.num_rows) > 0
    values = pa.StructArray.from_arrays(fields, fields=list(REJECTED))
    lists = pa.ListArray.from_arrays(pa.array(offsets), values, type=_TYPE, mask=pa.array(others))
    return table.append_column(COLUMN, lists)


def without_column(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A written table as the plan's own and the rejected requests, rows of `REJECTED`."""
    if COLUMN not in table.column_names or not table.schema.field(COLUMN).type.equals(_TYPE):
        return table, NO_REJECTS
    lists = table.column(COLUMN)
    rest = table.drop_columns([COLUMN])
    values = [chunk.flatten() for chunk in lists.chunks if len(chunk) > chunk.null_count]
    if not values:
        return rest, NO_REJECTS
    batches = [pa.RecordBatch.from_struct_array(value) for value in values]
    return rest, pa.Table.from_batches(batches, schema=REJECTED).combine_chunks()


def check_rejected(rejected: pa.Table, planned: pa.Table, metadata: dict[str, Any]) -> None:
    """Check the rejected requests of a plan against its rows and its metadata.

    Raises:
        BlendplanError: the first thing that is wrong.
    """
    if described(rejected).get(COLUMN) != metadata.get(COLUMN):
        raise BlendplanError(
            f"metadata says {metadata.get(COLUMN)} of rejected requests, there are "
            f"{rejected.num_rows}"
        )
    if not rejected.num_rows:
        return
    for name in REJECTED.names:
        if rejected.column(name).null_count:
            raise BlendplanError(f"a rejected request has no {name}")
    rows, status = numbers(rejected, "source_row"), numbers(rejected, "status")
    if rows[0] < 0 or np.any(np.diff(rows) <= 0):
        raise BlendplanError("rejected requests are not in the order of the request file")
    if status.min() < _STATUSES[0] or status.max() > _STATUSES[1]:
        raise BlendplanError("a rejected request has a status that is no HTTP error")
    both = pc.is_in(planned.column("source_row"), value_set=rejected.column("source_row"))
    if pc.any(both).as_py():
        raise BlendplanError("a request is planned and rejected at once")
