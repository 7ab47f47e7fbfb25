"""`compare`: one truth for all policies, and what they may know of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from blendplan.planning.compare import compare
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists

POLICIES = ("fcfs", "dfs", "blend")


def job(known: bool = True) -> Requests:
    prompts = [[k % 3, 7, *range(k % 11)] for k in range(90)]
    outputs = [1 + 40 * (k % 5) for k in range(90)]
    return requests_from_lists(
        prompts,
        output_tokens=outputs if known else None,
        ids=[f"r{k}" for k in range(90)],
    )


@pytest.mark.parametrize("lengths", ["auto", "known", "prior"])
def test_known_lengths_happen_whatever_policies_expect(lengths: str) -> None:
    requests = job()
    result = compare(requests, policies=POLICIES, gpu="l4", kv_tokens=2_000, lengths=lengths)
    for outcome in result.outcomes.values():
        assert outcome.run.output_tokens == requests.output_tokens.sum()
    expected = result.prepared.expected.output_tokens
    if lengths == "prior":
        assert len(np.unique(expected)) == 1
    else:
        assert np.array_equal(expected, requests.output_tokens)


def test_a_sample_is_all_that_policies_see_of_the_known_lengths(tmp_path: Path) -> None:
    requests = job()
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps({"id": "r4", "output_tokens": 161}) + "\n", encoding="utf-8")
    result = compare(
        requests, policies=POLICIES, gpu="l4", kv_tokens=2_000, lengths=f"sample:{results}"
    )
    assert set(result.prepared.expected.output_tokens) == {161.0}
    assert result.outcomes["blend"].run.output_tokens == requests.output_tokens.sum()
    assert result.prepared.requests is requests


def test_plausible_lengths_happen_where_none_is_known() -> None:
    result = compare(job(known=False), policies=["fcfs"], gpu="l4", kv_tokens=40_000)
    happened = result.prepared.workload.output_tokens
    assert result.outcomes["fcfs"].run.output_tokens == happened.sum()
    lengths = result.prepared.lengths
    assert happened.sum() == pytest.approx(lengths.mean.sum(), rel=0.3)
    assert len(np.unique(happened)) > 20
    assert (happened >= np.floor(lengths.outcomes[:, 0])).all()
    assert (happened <= np.ceil(lengths.outcomes[:, -1])).all()


def test_every_policy_has_its_own_bound_and_planning_time() -> None:
    result = compare(job(), policies=POLICIES, gpu="l4", kv_tokens=2_000)
    assert tuple(result.outcomes) == POLICIES
    for outcome in result.outcomes.values():
        assert 0 < outcome.bound.makespan_s <= outcome.run.makespan_s
        assert outcome.plan_wall_s > 0
