"""Step log and request log: Parquet files that grow as the run goes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blendplan.cost.calibration.from_steps import REACH
from blendplan.cost.reach import Reach, reach_as_metadata, sees_all
from blendplan.replaying.own_files import refuse_link
from blendplan.whole_file import replacing

# The columns up to time_s are what `blendplan calibrate` reads.
_STEP_LOG = pa.schema(
    [
        ("prefill_tokens", pa.int32()),
        ("decode_tokens", pa.int32()),
        ("kv_tokens_read", pa.int64()),
        ("sequences", pa.int32()),
        ("prefill_pairs", pa.float64()),
        ("time_s", pa.float64()),
        ("end_s", pa.float64()),
        ("kv_tokens_used", pa.int64()),
        ("running", pa.int32()),
        ("waiting", pa.int32()),
        ("replica", pa.int32()),
    ]
)
# A prompt counts once; what was cached, generated and planned is that of all answers together.
REQUEST_LOG = pa.schema(
    [
        ("request_id", pa.string()),
        ("source_row", pa.int64()),
        ("submitted_s", pa.float64()),
        ("first_token_s", pa.float64()),
        ("finished_s", pa.float64()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("answers", pa.int32()),
        ("preemptions", pa.int32()),
        ("attempts", pa.int32()),
        ("replica", pa.int32()),
        ("planned_start_s", pa.float64()),
        ("planned_finish_s", pa.float64()),
        ("planned_output_tokens", pa.float32()),
    ]
)
_ROWS_AT_ONCE = 8192


def step_log_of(reach: Reach) -> pa.Schema:
    """Columns of a step log that counts pairs and tokens read by a reach, which stands beside them.

    Nothing stands there where every token of a context counts.
    """
    if sees_all(reach):
        return _STEP_LOG
    return _STEP_LOG.with_metadata({REACH: json.dumps(reach_as_metadata(reach))})


class Log:
    """Rows that are written to a Parquet file a few thousand at a time; nowhere without a file."""

    def __init__(self, writer: pq.ParquetWriter | None, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._rows: list[dict[str, Any]] = []

    @property
    def wanted(self) -> bool:
        """Whether anybody asked for this log."""
        return self._writer is not None

    def add(self, **row: Any) -> None:
        """Append a row; columns left out are null."""
        if self._writer is not None:
            self._rows.append(row)
            if len(self._rows) >= _ROWS_AT_ONCE:
                self.flush()

    def flush(self) -> None:
        """Write what has been added."""
        if self._writer is not None and self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


@contextmanager
def open_log(path: Path | None, schema: pa.Schema) -> Iterator[Log]:
    """A log that appears at ``path`` when the block ends, by an interrupt too; None for none.

    Raises:
        BlendplanError: the path is a link, or cannot be written.
    """
    if path is None:
        yield Log(None, schema)
        return
    refuse_link(path)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        log = Log(writer, schema)
        interrupted: BaseException | None = None
        try:
            yield log
        except KeyboardInterrupt as error:
            interrupted = error
        log.flush()
    if interrupted is not None:
        raise interrupted
