"""Requests with several answers: planned as the sequences that an engine runs of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blendplan
from blendplan.cost.machine import machine
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.prepare import prepare
from blendplan.policy.blend.revise import revise
from blendplan.policy.make import make_policy
from blendplan.policy.progress import Progress
from blendplan.policy.registry import POLICIES
from blendplan.policy.state_machine import Policy
from blendplan.requests.columns import Requests
from blendplan.requests.sequences import sequences_of
from blendplan.simulator.simulate import simulate_run
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.repeated import repeat_requests
from tests.planfile.test_rerun import job

LIMITS: dict[str, Any] = {
    "gpu": "a100-80g",
    "kv_tokens": 2_000,
    "max_num_seqs": 24,
    "max_num_batched_tokens": 256,
    "overlap": 2.0,
}


def separate(requests: Requests) -> Requests:
    """The same sequences, each a request by itself."""
    rows = sequences_of(requests).request
    assert rows is not None
    return blendplan.requests_from_lists(
        [requests.prompt(row) for row in rows],
        output_tokens=[None if n < 0 else n for n in requests.output_tokens[rows].tolist()],
        max_tokens=[None if n < 0 else n for n in requests.max_tokens[rows].tolist()],
    )


@given(seed=st.integers(0, 2**32 - 1), requests=st.integers(1, 60))
@settings(max_examples=30)
def test_the_tree_is_that_of_as_many_requests(seed: int, requests: int) -> None:
    asked = job(seed, requests, answers=5)
    if asked.answers is None:
        return
    tree = repeat_requests(build_tree(asked), sequences_of(asked))
    expected = build_tree(separate(asked))
    for name in PrefixTree.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(tree, name), getattr(expected, name), name)


@pytest.mark.parametrize("policy", ["fcfs", "dfs"])
def test_orders_that_keep_requests_together_run_as_separate_requests(policy: str) -> None:
    # The definition of a request with several answers: that many requests with its prompt,
    # given to the engine one after the other. Lengths that are not known would be drawn anew.
    asked = job(5, 60, known=True, answers=6)
    together = blendplan.plan(asked, policy=policy, **LIMITS)
    apart = blendplan.plan(separate(asked), policy=policy, **LIMITS)
    assert together.metadata["predicted"] == apart.metadata["predicted"]
    assert together.metadata["bound_s"] == apart.metadata["bound_s"]
    assert together.metadata["density"] == apart.metadata["density"]
    for name in ("batch", "start_s", "finish_s", "cached_tokens", "output_tokens_mean"):
        assert together.column(name).tolist() == apart.column(name).tolist(), name
    assert together.metadata["requests"] == 60
    assert together.metadata["sequences"] == len(apart) == len(together)


@given(
    policy=st.sampled_from(POLICIES.names()),
    seed=st.integers(0, 2**32 - 1),
    requests=st.integers(1, 50),
    known=st.booleans(),
    effort=st.sampled_from([0, 2]),
    replicas=st.sampled_from([1, 3]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_answers_of_a_request_stand_together(
    policy: str, seed: int, requests: int, known: bool, effort: int, replicas: int
) -> None:
    asked = job(seed, requests, known, answers=5)
    plan = blendplan.plan(asked, policy=policy, effort=effort, replicas=replicas, **LIMITS)
    numbers = np.ones(requests, int) if asked.answers is None else asked.answers
    # `verify` checks that the answers of each request are 0, 1, 2, ... in rows that follow.
    plan.verify()
    assert np.bincount(plan.column("source_row")).tolist() == numbers.tolist()
    for rows in (plan.column("source_row")[plan.column("answer") == 0],):
        assert sorted(rows.tolist()) == list(range(requests))


@given(
    policy=st.sampled_from(POLICIES.names()),
    seed=st.integers(0, 2**32 - 1),
    requests=st.integers(1, 60),
)
@settings(max_examples=30)
def test_a_policy_offers_the_answers_of_a_request_in_a_row(
    policy: str, seed: int, requests: int
) -> None:
    target = machine(**LIMITS)
    prepared = prepare(job(seed, requests, False, answers=5), target)
    made = make_policy(policy, prepared.expected, target.limits, seed=seed)
    step = made.transitions
    owner = prepared.sequences.spread(np.arange(requests))
    seen: list[int] = []
    while len(seen) < len(owner):
        # One request at a time on an idle engine.
        step.begin_step(made.state, 0, 0.0)
        first = step.next_request(made.state, 0)
        for sequence in range(first, first + int(np.sum(owner == owner[first]))):
            # What a policy would hold back on a busy engine is in the engine's queue already.
            assert sequence == first or step.next_request(made.state, 1) == sequence
            step.admitted(made.state, sequence)
            seen.append(sequence)
        for sequence in np.flatnonzero(owner == owner[first]).tolist():
            step.finished(made.state, sequence)
    assert sorted(seen) == list(range(len(owner)))
    assert step.next_request(made.state, 0) == -1


@pytest.mark.parametrize("every", [1, 3, 17])
def test_a_run_that_is_arranged_anew_keeps_answers_together(every: int) -> None:
    target = machine(**LIMITS)
    prepared = prepare(job(4, 40, False, answers=6), target)
    made = make_policy("blend", prepared.expected, target.limits)
    times = 0

    def again(policy: Policy, progress: Progress) -> Policy:
        nonlocal times
        times += 1
        longer = prepared.expected.with_outcomes(prepared.expected.outcomes * (1 + times % 3))
        return revise(policy, longer, progress, target.limits)

    run = simulate_run(
        prepared.workload, made, target.limits, target.table, revise=again, revise_every=every
    )
    assert times > 3
    owner = prepared.sequences.spread(np.arange(40))[run.admission]
    assert np.count_nonzero(np.diff(owner)) == 39
    assert sorted(run.admission.tolist()) == list(range(len(owner)))


def test_one_answer_each_changes_nothing() -> None:
    asked = job(3, 40)
    assert asked.answers is None
    prepared = prepare(asked, machine(**LIMITS))
    assert prepared.tree is prepared.request_tree
    assert prepared.expected.request is None
    assert "sequences" not in blendplan.plan(asked, **LIMITS).metadata


def test_requests_stay_on_one_replica() -> None:
    asked = blendplan.requests_from_lists(
        [[1, 2, 3, number] for number in range(6)], output_tokens=[50] * 6, answers=[40] * 6
    )
    plan = blendplan.plan(asked, replicas=4, **LIMITS)
    plan.verify()
    parts = [plan.part(number) for number in range(4)]
    assert sum(part.requests for part in parts) == plan.requests == 6
    for part in parts:
        assert len(part) == 40 * part.requests
        part.verify()


def test_compare_counts_requests_and_sequences() -> None:
    asked = job(3, 20, answers=4)
    result = blendplan.compare(asked, policies=["fcfs", "dfs"], **LIMITS)
    assert len(result.prepared.requests) == 20
    assert len(result.prepared.sequences) == len(result.prepared.workload) > 20
    assert asked.answers is not None
    expected = int((asked.output_tokens * asked.answers).sum())
    assert result.outcomes["fcfs"].run.output_tokens == expected


def altered(plan: Plan, name: str, change: Any) -> Plan:
    place = plan.table.column_names.index(name)
    field = plan.table.schema.field(name)
    values = pa.array(change(plan.table.column(name).to_pylist()), field.type)
    return Plan(plan.table.set_column(place, field, values), plan.metadata)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("answer", lambda v: [*v[:-1], 7], "not 0, 1, 2, ... in rows that follow"),
        ("answer", lambda v: [1, *v[1:]], "there are 1 rows with a first answer"),
        ("source_row", lambda v: [99 if row == 1 else n for row, n in enumerate(v)], "source_row"),
        ("request_id", lambda v: ["x" if row == 1 else n for row, n in enumerate(v)], "request_id"),
        ("prompt_token_ids", lambda v: [v[0], v[0], *v[2:]], "again"),
    ],
)
def test_verify_finds_answers_that_are_not_together(name: str, change: Any, expected: str) -> None:
    asked = blendplan.requests_from_lists(
        [[1, 2, 3], [4, 5, 6]], output_tokens=[5, 6], answers=[3, 2]
    )
    plan = blendplan.plan(asked, policy="fcfs", **LIMITS)
    with pytest.raises(BlendplanError, match=expected):
        altered(plan, name, change).verify()


def test_a_part_of_the_answers_is_not_left() -> None:
    plan = blendplan.plan(job(3, 10, answers=4), policy="fcfs", **LIMITS)
    last = np.flatnonzero(plan.column("answer") > 0)[-1:]
    with pytest.raises(BlendplanError, match="lacks others"):
        plan.live_policy(left=last)


def test_too_many_answers_for_one_plan() -> None:
    asked = blendplan.requests_from_lists([[1]] * 20_000, answers=[16_384] * 20_000)
    with pytest.raises(BlendplanError, match="asks for 327680000 answers in all"):
        prepare(asked, machine(**LIMITS))
