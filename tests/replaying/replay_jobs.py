"""Small plans to replay, and what must hold of their results."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.requests.batch_output import output_lines
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests


def write_requests_file(path: Path, requests: int = 40, seed: int = 0, *, answers: int = 1) -> Path:
    """Batch lines and plain lines, texts and token ids and chats, with known output lengths.

    Args:
        path: where.
        requests: how many.
        seed: of what is drawn.
        answers: ``n`` of the last request; those before have less, by turns.
    """
    rng = np.random.default_rng(seed)
    beginnings = [rng.integers(3, 4000, rng.integers(20, 120)).tolist() for _ in range(3)]
    lines: list[dict[str, Any]] = []
    for row in range(requests):
        length = int(rng.integers(1, 40))
        asked = {"max_tokens": length, "temperature": 0, "output_tokens": length}
        if answers > 1:
            asked |= {"temperature": 1, "n": 1 + (row - requests) % answers}
        tokens = beginnings[row % 3] + rng.integers(3, 4000, rng.integers(1, 30)).tolist()
        if row % 2:
            lines.append({"id": f"plain-{row}", "prompt_token_ids": tokens, **asked})
        else:
            body = {"model": "tiny", "prompt": tokens, **asked}
            lines.append({"custom_id": f"batch-{row}", "url": "/v1/completions", "body": body})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def small_plan(requests: Requests | Path, **options: Any) -> Plan:
    """A plan for a GPU with a KV cache of a few dozen blocks."""
    if isinstance(requests, Path):
        requests = read_requests(requests)
    options = {"kv_tokens": 96 * 16, "max_num_seqs": 16, "max_num_batched_tokens": 128} | options
    return plan(requests, gpu="l4", model="llama-3.1-8b", **options)


def surprised(made: Plan, output_tokens: list[int]) -> Plan:
    """The same plan of requests that will generate what it did not expect.

    Args:
        made: a plan without known lengths.
        output_tokens: what each request generates, in the order of the request file.
    """
    known = np.array(output_tokens, dtype=np.int32)[made.column("source_row")]
    place = made.table.column_names.index("output_tokens_known")
    table = made.table.set_column(place, "output_tokens_known", pa.array(known))
    return Plan(table, made.metadata)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A results file, line by line, a table as the lines that it stands for."""
    if path.suffix == ".parquet":
        return [dict(line) for _, line in output_lines(path)]
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids_of(made: Plan) -> list[str]:
    """Request ids in the order of the request file."""
    by_row = dict(zip(made.column("source_row"), made.table.column("request_id"), strict=True))
    return [by_row[row].as_py() for row in sorted(by_row)]


def assert_each_once(made: Plan, output: Path, *, in_order: bool = True) -> None:
    """Every request of the plan has exactly one line, and nothing else is left of the run."""
    found = [line["custom_id"] for line in lines_of(output)]
    expected = ids_of(made)
    assert Counter(found) == Counter(expected)
    if in_order:
        assert found == expected
    beside = [path.name for path in output.parent.iterdir() if path.name.startswith(output.name)]
    assert beside == [output.name]
