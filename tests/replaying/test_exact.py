"""A replay on the simulated engine takes exactly the planned steps, whatever the policy."""

from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blendplan
from blendplan.engines import asking
from blendplan.policy.registry import POLICIES
from tests.planfile.test_rerun import job


@given(
    policy=st.sampled_from(POLICIES.names()),
    seed=st.integers(0, 2**32 - 1),
    requests=st.integers(1, 200),
    known=st.booleans(),
    kv_tokens=st.integers(700, 4_000),
    answers=st.sampled_from([1, 4]),
    async_scheduling=st.booleans(),
    ahead=st.sampled_from([1, 256]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_step_differs(
    tmp_path_factory: pytest.TempPathFactory,
    policy: str,
    seed: int,
    requests: int,
    known: bool,
    kv_tokens: int,
    answers: int,
    async_scheduling: bool,
    ahead: int,
) -> None:
    """However many requests are sent ahead of their turn."""
    folder = tmp_path_factory.mktemp("exact")
    plan = blendplan.plan(
        job(seed, requests, known, answers=answers),
        gpu="a100-80g",
        policy=policy,
        kv_tokens=kv_tokens,
        max_num_seqs=24,
        max_num_batched_tokens=256,
        overlap=2.0,
        async_scheduling=async_scheduling,
    )
    with patch.object(asking, "_AHEAD", ahead):
        done = blendplan.replay(
            plan,
            "sim",
            folder / "results.jsonl",
            step_log=folder / "steps.parquet",
            request_log=folder / "requests.parquet",
        )
    predicted = plan.metadata["predicted"]
    assert done.tally.steps == predicted["steps"]
    assert done.tally.preemptions == predicted["preemptions"]
    assert done.tally.elapsed_s == predicted["makespan_s"]
    assert done.tally.cached_share == plan.metadata["prefix_sharing"]["planned"]
    log = pq.read_table(folder / "requests.parquet").sort_by("source_row").to_pydict()
    planned = plan.table.group_by("source_row").aggregate(
        [("finish_s", "max"), ("cached_tokens", "sum"), ("answer", "count")]
    )
    expected = planned.sort_by("source_row").to_pydict()
    assert log["finished_s"] == log["planned_finish_s"] == expected["finish_s_max"]
    assert log["cached_tokens"] == expected["cached_tokens_sum"]
    assert log["answers"] == expected["answer_count"]
    steps = pq.read_table(folder / "steps.parquet").to_pydict()
    assert len(steps["time_s"]) == predicted["steps"]
    assert sum(steps["prefill_tokens"]) == predicted["prefill_tokens"]
    assert steps["end_s"][-1] == predicted["makespan_s"]


@pytest.mark.parametrize("policy", ["blend", "blendserve", "dfs"])
def test_a_step_goes_on_when_what_it_asks_for_is_there(policy: str) -> None:
    """After lengths are learned, other requests are next than those that were sent ahead."""
    plan = blendplan.plan(
        job(2, 400, False),
        gpu="a100-80g",
        policy=policy,
        kv_tokens=3_000,
        max_num_seqs=24,
        max_num_batched_tokens=256,
        effort=0,
    )
    with patch.object(asking, "_AHEAD", 1):
        done = blendplan.replay(plan, "sim")
    predicted = plan.metadata["predicted"]
    assert done.tally.steps == predicted["steps"]
    assert done.tally.elapsed_s == predicted["makespan_s"]
