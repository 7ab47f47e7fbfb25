"""Requests that a plan leaves out: in its file, in its parts, and checked with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.requests.context import over_context
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.rejected import leave_out
from blendplan.requests.rejects import NO_REJECTS

ENGINE: dict[str, Any] = {
    "gpu": "a100-80g",
    "kv_tokens": 4096,
    "max_num_seqs": 4,
    "max_model_len": 64,
}


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    prompts = [[row] * (100 if row % 3 == 0 else 8) for row in range(1, 13)]
    requests = requests_from_lists(prompts, output_tokens=[4] * 12)
    refused = over_context(requests, 64)
    return plan(leave_out(requests, refused, tmp_path / "rejects"), policy="fcfs", **ENGINE)


def test_a_plan_says_what_it_leaves_out(made: Plan, tmp_path: Path) -> None:
    made.write(tmp_path / "plan.arrow")
    found = Plan.read(tmp_path / "plan.arrow")
    assert found.rejected.equals(made.rejected)
    assert found.table.equals(made.table)
    assert found.rejected.column("source_row").to_pylist() == [2, 5, 8, 11]
    assert found.rejected.column("request_id").to_pylist() == ["3", "6", "9", "12"]
    assert found.metadata["rejected"] == {
        "requests": 4,
        "codes": {"context_length_exceeded": 4},
    }
    assert found.verify()[-1] == "4 rejected requests, none of them planned"
    # As any other tool reads it.
    lists = pa.ipc.open_file(tmp_path / "plan.arrow").read_all()["rejected"]
    assert lists[0].as_py()[0]["message"] == "prompt of 100 tokens, model takes 64"
    assert lists.null_count == len(made) - 1


def test_a_plan_that_leaves_out_nothing_has_no_such_column(tmp_path: Path) -> None:
    whole = plan(requests_from_lists([[1, 2]], output_tokens=[4]), policy="fcfs", **ENGINE)
    whole.write(tmp_path / "plan.arrow")
    assert "rejected" not in pa.ipc.open_file(tmp_path / "plan.arrow").schema.names
    found = Plan.read(tmp_path / "plan.arrow")
    assert found.rejected.equals(NO_REJECTS)
    assert "rejected" not in found.metadata


def test_of_several_replicas_the_first_has_them(tmp_path: Path) -> None:
    prompts = [[row] * (100 if row == 5 else 8) for row in range(1, 13)]
    requests = requests_from_lists(prompts, output_tokens=[4] * 12)
    requests = leave_out(requests, over_context(requests, 64), tmp_path / "rejects")
    made = plan(requests, policy="fcfs", replicas=2, **ENGINE)
    made.write(tmp_path / "plan.arrow")
    found = Plan.read(tmp_path / "plan.arrow")
    found.verify()
    parts = [found.part(0), found.part(1)]
    assert [part.rejected.num_rows for part in parts] == [1, 0]
    for part in parts:
        part.write(tmp_path / "part.arrow")
        Plan.read(tmp_path / "part.arrow").verify()


def _without_order(table: pa.Table) -> pa.Table:
    return table.take(pa.array([1, 0, 2, 3]))


def _planned_too(table: pa.Table) -> pa.Table:
    return table.set_column(0, "source_row", pa.array([0, 1, 3, 4]))


def _with_status_200(table: pa.Table) -> pa.Table:
    return table.set_column(2, "status", pa.array(np.full(4, 200, np.int32)))


def _without_id(table: pa.Table) -> pa.Table:
    return table.set_column(1, "request_id", pa.array([None, "6", "9", "12"]))


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (_without_order, "not in the order of the request file"),
        (_planned_too, "planned and rejected at once"),
        (_with_status_200, "no HTTP error"),
        (_without_id, "has no request_id"),
        (lambda table: table.slice(0, 3), "metadata says"),
    ],
)
def test_verify_finds_what_is_wrong(
    made: Plan, alter: Callable[[pa.Table], pa.Table], reason: str
) -> None:
    with pytest.raises(BlendplanError, match=reason):
        replace(made, rejected=alter(made.rejected)).verify()


def test_an_altered_message_is_found(made: Plan, tmp_path: Path) -> None:
    made.write(tmp_path / "plan.arrow")
    found = Plan.read(tmp_path / "plan.arrow")
    messages = pa.array(["nothing"] * 4)
    altered = replace(found, rejected=found.rejected.set_column(4, "message", messages))
    with pytest.raises(BlendplanError, match="was altered"):
        altered.verify()
