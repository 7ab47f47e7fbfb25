"""Plans that know the lengths of a sample only, of jobs whose true lengths the engine is told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.lengths.sample import LEAST_SAMPLES, choose_sample
from blendplan.planfile.plan import Plan
from blendplan.requests.columns import Requests, without_lengths
from blendplan.tree.build import build_tree
from blendplan.whole_file import replacing

SHARE = 0.01
# Of a job so small that 200 requests are much of it, there are no more than these in a sample.
MOST_OF_JOB = 0.05


def sample_rows(requests: Requests, seed: int = 0) -> NDArray[np.int64]:
    """A sample of 1 %, at least 200 requests but at most 5 % of them; rising int64 [k]."""
    hidden = without_lengths(requests)
    fraction = min(1.0, max(SHARE, LEAST_SAMPLES / len(requests)))
    rows = choose_sample(build_tree(hidden), hidden, fraction, seed)
    most = max(2, round(MOST_OF_JOB * len(requests)), round(SHARE * len(requests)))
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def write_sample(requests: Requests, path: Path, seed: int = 0) -> int:
    """Write what a run of the sample would have told, and return how many requests that are."""
    rows = sample_rows(requests, seed)
    write_lengths(requests, rows, path)
    return len(rows)


def write_lengths(requests: Requests, rows: NDArray[np.int64], path: Path) -> None:
    """Write the true lengths of some requests as the results of a run of these."""
    columns = (
        requests.ids.take(rows).to_pylist(),
        requests.prompt_tokens_of(rows).tolist(),
        requests.output_tokens[rows].tolist(),
    )
    lines = [
        json.dumps({"id": name, "prompt_tokens": prompt, "output_tokens": output})
        for name, prompt, output in zip(*columns, strict=True)
    ]
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def with_true_lengths(made: Plan, requests: Requests) -> Plan:
    """A plan that was made without lengths, for an engine that is told them.

    What the policy knows stays as it is; requests generate what they state.
    """
    order = np.argsort(requests.source_row, kind="stable")
    place = np.searchsorted(requests.source_row[order], made.column("source_row"))
    lengths = requests.output_tokens[order[place]].astype(np.int32)
    column = made.table.schema.get_field_index("output_tokens_known")
    field = made.table.schema.field(column)
    table = made.table.set_column(column, field, pa.array(lengths, type=field.type))
    metadata = {name: value for name, value in made.metadata.items() if name != "columns_sha256"}
    return replace(made, table=table, metadata=metadata)
