"""Results as a table: the columns that hold answers, and lines read back from them.

A table of results says all that the lines of a batch output file say, so that it serves wherever
these do.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.errors import BlendplanError
from blendplan.requests.tables import reading

SUFFIXES = (".parquet", ".pq")
"""Ends of the names of results files that are tables."""

ID = "custom_id"
ANSWER = pa.schema(
    [
        ("choice", pa.int32()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("status_code", pa.int32()),
        ("error", pa.string()),
        ("response", pa.string()),
        ("source_row", pa.int64()),
    ]
)
"""Columns of an answer beside its id and the columns of its source."""

MARK = {b"blendplan_results": b"1"}
"""In the metadata of the schema of such a table."""

_LINE = (ID, "choice", "status_code", "error", "response", "source_row")
_ROWS_AT_ONCE = 1024


def table_lines(path: Path, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The lines that a table of results stands for, each with the number of its row, from 1.

    Args:
        path: a Parquet file.
        name: as messages name it.

    Raises:
        BlendplanError: it cannot be read, or is another table.
    """
    with reading(name):
        file = pq.ParquetFile(path)
        is_ours = MARK.items() <= (file.schema_arrow.metadata or {}).items()
    if not is_ours:
        raise BlendplanError(
            f"{name} is a table, but not of results; give a results file of a replay"
        )
    number = 0
    with reading(name):
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_LINE)):
            for row in batch.to_pylist():
                number += 1
                if row["choice"] == 0:
                    yield number, _line(row)


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the line of one request said."""
    place, status = row["source_row"], row["status_code"]
    response = None
    if status is not None:
        body = None if row["response"] is None else json.loads(row["response"])
        response = {"status_code": status, "request_id": f"req_{place}", "body": body}
    return {
        "id": f"batch_req_{place}",
        ID: row[ID],
        "response": response,
        "error": None if row["error"] is None else json.loads(row["error"]),
    }
