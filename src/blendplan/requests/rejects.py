"""The file of rejected requests, and their columns: nothing that was left out of a plan is lost."""

import base64
import json
import re
from array import array
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from blendplan.errors import BlendplanError

REJECTED = pa.schema(
    [
        ("source_row", pa.int64()),
        ("request_id", pa.string()),
        ("status", pa.int32()),
        ("code", pa.string()),
        ("message", pa.string()),
    ]
)
"""Columns of requests that were left out: the row in the file, from 0; the id, the number of the
line (from 1) where it states none; the HTTP status with which an engine's server refuses such a
request; the reason as one word; and in words."""

NO_REJECTS: pa.Table = REJECTED.empty_table()

INVALID = "invalid_request"
_BAD_REQUEST = 400
# Looked for where a line is no JSON, so that its error carries the id that the user knows.
_ID = re.compile(rb'"(?:custom_id|id)"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d{1,18})')


class Failing:
    """Rejects nothing: the first bad line or row ends the reading."""

    rejected = 0

    def __init__(self, source: str, unit: str) -> None:
        self._source = source
        self._unit = unit

    def __call__(self, row: int, reason: str, original: bytes) -> None:
        raise BlendplanError(f"{self._source}, {self._unit} {row + 1}: {reason}")

    def columns(self) -> pa.Table:
        """No rows of `REJECTED`."""
        return NO_REJECTS


class Rejecting:
    """Writes each bad line or row with the reason as a JSON line, and keeps its columns.

    The keys are ``line`` or ``row`` (from 1), ``reason``, and ``original``, or
    ``original_base64`` where the line is not UTF-8; before them ``file``, where there are several.

    Parameters:
        file: where the lines go.
        unit: what a request is called.
        name: of the file, None where there is one.
        id_prefix: stands before the number in the id of a request that states none.
    """

    def __init__(
        self, file: BinaryIO, unit: str, name: str | None = None, id_prefix: str = ""
    ) -> None:
        self._file = file
        self._unit = unit
        self._name = {} if name is None else {"file": name}
        self._id_prefix = id_prefix
        self.rejected = 0
        self._rows = array("q")
        self._ids: list[str] = []
        self._reasons: list[str] = []

    def __call__(self, row: int, reason: str, original: bytes) -> None:
        entry: dict[str, object] = {**self._name, self._unit: row + 1, "reason": reason}
        try:
            entry["original"] = original.decode("utf-8")
        except UnicodeDecodeError:
            entry["original_base64"] = base64.b64encode(original).decode("ascii")
        self._file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n")
        self.rejected += 1
        self._rows.append(row)
        self._ids.append(_id_of(original) or f"{self._id_prefix}{row + 1}")
        self._reasons.append(reason)

    def columns(self) -> pa.Table:
        """What was rejected, in the order of the file; rows of `REJECTED`."""
        rows = np.array(self._rows, dtype=np.int64)
        columns = [
            pa.array(rows),
            pa.array(self._ids, pa.string()),
            pa.array(np.full(len(rows), _BAD_REQUEST, dtype=np.int32)),
            pa.array([INVALID] * len(rows), pa.string()),
            pa.array(self._reasons, pa.string()),
        ]
        order = pa.array(np.argsort(rows, kind="stable"))
        return pa.table(columns, schema=REJECTED).take(order).combine_chunks()


def _id_of(original: bytes) -> str | None:
    """The id that a bad line states, as far as that can be told."""
    try:
        fields = json.loads(original)
        found = fields.get("custom_id", fields.get("id")) if isinstance(fields, dict) else None
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        match = _ID.search(original)
        try:
            found = None if match is None else json.loads(match[1])
        except ValueError:
            found = None
    if isinstance(found, str):
        return found.encode("utf-8", "replace").decode("utf-8") or None
    return str(found) if type(found) is int and abs(found) < 10**18 else None
