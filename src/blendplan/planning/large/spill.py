"""Requests on disk between tasks: Arrow files of small batches, of which any can be read alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests, several
from blendplan.requests.gather import gather
from blendplan.whole_file import replacing

SPILLED = pa.schema(
    [
        ("id", pa.large_string()),
        ("source_row", pa.int64()),
        ("prompt", pa.large_list(pa.int32())),
        ("output_tokens", pa.int32()),
        ("max_tokens", pa.int32()),
        ("answers", pa.int32()),
        ("body", pa.large_binary()),
    ]
)

# A batch is what is read at least, and one prompt of each is kept in memory while ranges are cut.
_BATCH_BYTES = 1 << 20
_LEAST_ROWS, _MOST_ROWS = 64, 1024
# Of which a run has so many, as far as it has rows for them.
_LEAST_BATCHES = 32


def rows_at_once(requests: Requests) -> int:
    """How many requests a batch of these holds."""
    size = requests.token_ids.nbytes + (0 if requests.bodies is None else requests.bodies.nbytes)
    fitting = _BATCH_BYTES * len(requests) // max(1, size)
    return min(max(min(fitting, len(requests) // _LEAST_BATCHES), _LEAST_ROWS), _MOST_ROWS)


@contextmanager
def spilling(path: Path) -> Iterator[Any]:
    """A writer of batches to a file that appears when the block ends."""
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, SPILLED, options=options) as writer,
    ):
        yield writer


def batch_of(requests: Requests, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """Some requests, in the order of `rows`, as a batch."""
    lengths = np.diff(requests.offsets)[rows]
    offsets = offsets_of(lengths)
    tokens = gather(requests.token_ids, requests.offsets, rows, int(offsets[-1]))
    taken = pa.array(rows)
    n = len(rows)
    bodies = requests.bodies
    columns = [
        requests.ids.take(taken),
        pa.array(requests.source_row[rows]),
        pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens)),
        pa.array(requests.output_tokens[rows]),
        pa.array(requests.max_tokens[rows]),
        pa.array(np.ones(n, np.int32) if requests.answers is None else requests.answers[rows]),
        pa.nulls(n, pa.large_binary()) if bodies is None else bodies.take(taken),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SPILLED)


def read_batches(path: Path, start: int, end: int | None) -> Iterator[pa.RecordBatch]:
    """Batches `start` to `end` of a file, or to its end, copied into memory one by one."""
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
        for number in range(start, reader.num_record_batches if end is None else end):
            yield reader.get_batch(number)


def requests_of(batches: Sequence[pa.RecordBatch], estimated: bool) -> Requests:
    """Batches as requests, in their order."""
    table = pa.Table.from_batches(batches, schema=SPILLED).combine_chunks()
    prompts = _whole(table, "prompt")
    bodies = _whole(table, "body")
    return Requests(
        ids=_whole(table, "id"),
        source_row=table.column("source_row").to_numpy(),
        token_ids=prompts.flatten().to_numpy(),
        offsets=offsets_of(prompts.value_lengths().to_numpy()),
        output_tokens=table.column("output_tokens").to_numpy(),
        max_tokens=table.column("max_tokens").to_numpy(),
        bodies=None if bodies.null_count == len(bodies) else bodies,
        estimated_tokens=estimated,
        answers=several(table.column("answers").to_numpy()),
    )


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else column.combine_chunks()
