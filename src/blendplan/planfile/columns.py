"""The columns of a plan file, its metadata, and how both are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.lengths.predicted import OUTCOMES
from blendplan.policy.state_machine import SIDES

FORMAT_VERSION = 3


METADATA_KEY = b"blendplan"


# Rows per record batch: a batch of long prompts stays well under a gigabyte.
ROWS_PER_BATCH = 16_384


SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("request_id", pa.string()),
        ("source_row", pa.int64()),
        ("answer", pa.int32()),
        ("replica", pa.int32()),
        ("batch", pa.int64()),
        ("side", pa.dictionary(pa.int8(), pa.string())),
        ("memory_left_tokens", pa.int64()),
        ("memory_right_tokens", pa.int64()),
        ("prefill_budget_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("output_tokens_mean", pa.float32()),
        ("output_tokens_p50", pa.float32()),
        ("output_tokens_p90", pa.float32()),
        ("output_tokens_outcomes", pa.list_(pa.float32())),
        ("output_tokens_known", pa.int32()),
        ("max_tokens", pa.int32()),
        ("new_prompt_tokens", pa.float64()),
        ("density", pa.float64()),
        ("family", pa.int64()),
        ("depth_first", pa.int64()),
        ("by_density", pa.int64()),
        ("start_s", pa.float64()),
        ("finish_s", pa.float64()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("body", pa.binary()),
    ]
)


def unreadable(path: Path, error: Exception) -> BlendplanError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BlendplanError(
        f"{path} is not a plan file, or it is cut off or damaged ({reason}); "
        f"make it again with `blendplan plan`"
    )


def _damaged(path: Path) -> BlendplanError:
    return BlendplanError(f"plan {path} has damaged metadata; make it again with `blendplan plan`")


def parse_metadata(path: Path, text: bytes, schema: pa.Schema) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
        version = metadata.pop("format_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise _damaged(path) from None
    if version != FORMAT_VERSION:
        raise BlendplanError(
            f"plan {path} has format version {version!r}, this blendplan reads {FORMAT_VERSION}; "
            f"make it again with `blendplan plan`"
        )
    if not {"columns_sha256", "metadata_sha256"} <= metadata.keys():
        raise _damaged(path)
    if not schema.equals(SCHEMA):
        missing = [name for name in SCHEMA.names if name not in schema.names]
        what = f"lacks column {missing[0]!r}" if missing else "has columns of other types"
        raise BlendplanError(f"plan {path} {what}; make it again with `blendplan plan`")
    return dict(metadata)


def numbers(table: pa.Table, name: str) -> NDArray[Any]:
    """A numeric column as a numpy array [n]."""
    values: NDArray[Any] = table.column(name).to_numpy()
    return values


def outcomes_of(table: pa.Table) -> NDArray[np.float64]:
    """Equally likely output lengths of each row; float64 [n, OUTCOMES].

    All are the mean where the column says null, which means that the length is certain.
    """
    lists = table.column("output_tokens_outcomes")
    mean = numbers(table, "output_tokens_mean").astype(np.float64)
    outcomes = np.repeat(mean[:, None], OUTCOMES, axis=1)
    unsure = lists.is_valid().to_numpy()
    if unsure.any():
        values = np.concatenate([chunk.flatten().to_numpy() for chunk in lists.chunks])
        outcomes[unsure] = values.reshape(-1, OUTCOMES)
    return outcomes


def sides_of(table: pa.Table) -> NDArray[np.int8]:
    """Side of each row, 0 compute and 1 memory; int8 [n]."""
    column = table.column("side").combine_chunks()
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    codes = [
        np.array([SIDES.index(name) for name in chunk.dictionary.to_pylist()], dtype=np.int8)[
            chunk.indices.to_numpy(zero_copy_only=False)
        ]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate(codes) if codes else np.empty(0, dtype=np.int8)
