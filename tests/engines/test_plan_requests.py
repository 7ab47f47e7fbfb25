"""Finding the rows of a plan for requests that somebody else sends."""

import json
from pathlib import Path

import pytest

from blendplan.engines.plan_requests import PlanRequests
from blendplan.planfile.plan import Plan
from tests.replaying.replay_jobs import small_plan


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    """Three requests, two of them with the same prompt, one with two answers."""
    asked = {"max_tokens": 4, "output_tokens": 4}
    bodies = [
        {"id": "a", "prompt_token_ids": [5, 6, 7], **asked},
        {"id": "b", "prompt_token_ids": [8, 9], "n": 2, "temperature": 1, **asked},
        {"id": "c", "prompt_token_ids": [5, 6, 7], **asked},
    ]
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return small_plan(job, policy="fcfs")


def test_by_id(made: Plan) -> None:
    known = PlanRequests(made)
    ids = made.table.column("request_id").to_pylist()
    for name in "abc":
        assert known.by_id([None, "strange", name]) == ids.index(name)
    assert known.by_id([None, "strange"]) == -1


def test_each_prompt_is_found_as_often_as_the_plan_has_it(made: Plan) -> None:
    known = PlanRequests(made)
    ids = made.table.column("request_id").to_pylist()
    found = []
    for _ in range(2):
        row = known.by_prompt([5, 6, 7])
        assert known.by_prompt([5, 6, 7]) == row  # looking takes nothing
        found.append(ids[row])
        known.came([5, 6, 7])
    assert sorted(found) == ["a", "c"]
    assert known.by_prompt([5, 6, 7]) == -1
    assert ids[known.by_prompt([8, 9])] == "b"
    assert known.by_prompt([5, 6]) == -1
    known.came([1])  # of a stranger
