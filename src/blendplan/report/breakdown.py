"""A plan by group of requests: the sides of the memory partition, the families of a mixed job."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.report.quantities import count, duration, rounded, share
from blendplan.report.tables import Column, Columns

COLUMNS = (
    "answer",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens_mean",
    "density",
    "start_s",
    "finish_s",
)

_MOST_FAMILIES = 12
# What tells one request of a family from the next is a number at the end of its id; where that
# leaves too many names (exam-law, exam-music), the first word is the family.
_TAILS = (r"[-_./:#]*[0-9]+$", r"[-_./:#0-9].*$")


def families(request_ids: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Families of requests by what their ids say before a number, as in ``chat-00042``.

    Returns:
        names and, for each request, the index of its name; no names when the ids tell nothing, or
        too many families to list.
    """
    for tail in _TAILS:
        stems = pa.chunked_array([pc.replace_substring_regex(request_ids, tail, "")])
        encoded = stems.combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        if len(names) <= _MOST_FAMILIES and "" not in names:
            return names, encoded.indices.to_numpy().astype(np.int64)
    return [], np.zeros(len(request_ids), dtype=np.int64)


def breakdown(
    names: Sequence[str], group: NDArray[np.integer[Any]], columns: Mapping[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """Totals and means per group; means are over sequences, one for each answer to a request.

    Args:
        names: of the groups.
        group: index into `names` for each of n requests; [n].
        columns: the columns of a plan that `COLUMNS` names; [n] each.

    Returns:
        one dictionary per group that has requests.
    """
    rows = []
    for index, name in enumerate(names):
        mine = {key: values[group == index] for key, values in columns.items()}
        if not len(mine["answer"]):
            continue
        prompt_tokens = int(mine["prompt_tokens"].sum(dtype=np.int64))
        rows.append(
            {
                "name": name,
                "requests": int(np.count_nonzero(mine["answer"] == 0)),
                "prompt_tokens_mean": prompt_tokens / len(mine["answer"]),
                "output_tokens_mean": float(mine["output_tokens_mean"].mean(dtype=np.float64)),
                "cached_share": int(mine["cached_tokens"].sum(dtype=np.int64)) / prompt_tokens,
                "density_median": float(np.median(mine["density"])),
                "first_start_s": float(mine["start_s"].min()),
                "last_finish_s": float(mine["finish_s"].max()),
            }
        )
    return rows


def breakdown_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Columns:
    """The groups of `breakdown` as a table; `title` heads the names."""
    return Columns(
        [
            Column(title, text=True),
            *map(Column, ("requests", "prompt", "output", "cached", "density")),
            Column("from", spare=1),
            Column("to", spare=2),
        ],
        [
            (
                row["name"],
                count(row["requests"]),
                rounded(row["prompt_tokens_mean"]),
                rounded(row["output_tokens_mean"]),
                share(row["cached_share"]),
                rounded(row["density_median"]),
                duration(row["first_start_s"]),
                duration(row["last_finish_s"]),
            )
            for row in rows
        ],
    )
