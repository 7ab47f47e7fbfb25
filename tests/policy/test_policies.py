"""Memory partition, prefill budgets, orders, and the policies' state machine by itself."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.cost.datasheet import datasheet_cost
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.lengths.predicted import log_normal_outcomes
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.make import make_policy
from blendplan.policy.paper_scanners import memory_partition, prefill_budget_tokens
from blendplan.policy.registry import POLICIES
from blendplan.policy.state_machine import COMPUTE, MEMORY, Policy

ENGINE = EngineLimits(kv_tokens=4096, max_num_seqs=16, max_num_batched_tokens=256)
PRICES = StepPrices(token_s=1.0, read_s=0.01, least_tokens=8)
DENSITIES = st.floats(0.01, 100.0)


def test_figure_6_of_the_paper() -> None:
    """Llama-3.1-8B on an A100 of 60 GB KV cache, a workload of density 1.27."""
    costs = datasheet_cost(
        model_spec("llama-3.1-8b"), gpu_spec("a100-80g"), active_parameters=8.0e9
    )
    compute_s, memory_s = costs.demand([512, 256], [256, 16384])
    left, right = compute_s / memory_s
    assert (left, right) == pytest.approx((3.73, 0.096), rel=0.01)
    m_left, m_right = memory_partition(60e9, 1.27, left, right)
    assert (round(m_left / 1e9, 1), round(m_right / 1e9, 1)) == (19.3, 40.7)
    assert m_left * left + m_right * right == pytest.approx(60e9 * 1.27)


@given(st.floats(1.0, 1e12), DENSITIES, DENSITIES, DENSITIES)
@settings(max_examples=100)
def test_partition(kv_tokens: float, root: float, one: float, other: float) -> None:
    left, right = max(one, other), min(one, other)
    m_left, m_right = memory_partition(kv_tokens, root, left, right)
    assert m_left + m_right == pytest.approx(kv_tokens)
    assert min(m_left, m_right) >= 0
    if left == right:
        assert m_left == m_right
    elif root >= left:
        assert (m_left, m_right) == (kv_tokens, 0.0)
    elif root <= right:
        assert (m_left, m_right) == (0.0, kv_tokens)
    else:
        mixed = m_left * left + m_right * right
        assert mixed == pytest.approx(kv_tokens * root, rel=1e-6)


def test_prefill_budget_is_c_equals_n_p_over_d() -> None:
    # N = 1000 / (100 + 200/2) = 5 requests; one in 200 ends per step and 100 tokens replace it.
    assert prefill_budget_tokens(1000.0, 100.0, 100.0, 200.0) == pytest.approx(5 * 100 / 200)
    # With 60 of its 100 prompt tokens in the prefix cache, 40 are computed.
    assert prefill_budget_tokens(1000.0, 100.0, 40.0, 200.0) == pytest.approx(5 * 40 / 200)
    assert prefill_budget_tokens(0.0, 100.0, 100.0, 200.0) == 0.0


def columns_of(n: int, seed: int = 0) -> PolicyInput:
    """n requests with random demands; compute-heavy ones first in the sorted order."""
    rng = np.random.default_rng(seed)
    prompts, outputs = rng.integers(1, 300, n), rng.integers(1, 300, n)
    density = 10.0 * prompts / outputs
    depth_first = rng.permutation(n)
    # Families are runs of the depth-first order.
    family = np.empty(n, dtype=np.int64)
    family[depth_first] = np.cumsum((rng.random(n) < 0.6) & (np.arange(n) > 0))
    return PolicyInput(
        depth_first=depth_first,
        family=family,
        by_density=np.argsort(-density, kind="stable"),
        prompt_tokens=prompts.astype(np.float64),
        new_prompt_tokens=prompts * rng.uniform(0.3, 1.0, n),
        outcomes=log_normal_outcomes(outputs, np.full(n, 0.5 * (seed % 2))),
        density=density,
        root_density=float(np.median(density)) if n else 0.0,
        prices=PRICES,
    )


def admissions(policy: Policy, seed: int, preempt: float = 0.0) -> Iterator[int]:
    """First admissions in order, on an engine that refuses, preempts and ends at random."""
    state, transitions, chance = policy.state, policy.transitions, random.Random(seed)
    n = len(policy.side)
    seen: set[int] = set()
    running: list[int] = []
    waiting_again: list[int] = []
    for _ in range(100 * n + 100):
        if len(seen) == n and not running and not waiting_again:
            return
        used = chance.uniform(0.0, ENGINE.kv_tokens)
        budget = transitions.begin_step(state, len(running), used)
        assert 1 <= budget <= ENGINE.max_num_batched_tokens
        while len(running) < ENGINE.max_num_seqs:
            if waiting_again:
                request = waiting_again.pop()
            else:
                request = transitions.next_request(state, len(running))
                if request < 0 or (running and chance.random() < 0.2):
                    break
                assert request not in seen
                seen.add(request)
                yield request
            transitions.admitted(state, request)
            running.append(request)
        # An idle engine gets something as long as there is something.
        assert running or len(seen) == n
        for request in list(running):
            fate = chance.random()
            if fate < 0.3:
                running.remove(request)
                transitions.finished(state, request)
            elif fate < 0.3 + preempt and len(running) > 1:
                running.remove(request)
                transitions.preempted(state, request)
                waiting_again.append(request)
    raise AssertionError("the policy does not come to an end")


@given(
    st.sampled_from(POLICIES.names()),
    st.integers(1, 60),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=150)
def test_every_request_is_admitted_once(name: str, n: int, seed: int, preempt: float) -> None:
    policy = make_policy(name, columns_of(n, seed), ENGINE, seed=seed)
    transitions = policy.transitions
    assert policy.name == name
    assert sorted(admissions(policy, seed, preempt)) == list(range(n))
    assert transitions.next_request(policy.state, 0) == -1
    assert transitions.begin_step(policy.state, 0, 0.0) >= 1


@given(st.integers(1, 60), st.integers(0, 99), st.sampled_from([0.0, 0.1]))
@settings(max_examples=75)
def test_scanners_meet(n: int, seed: int, preempt: float) -> None:
    columns = columns_of(n, seed)
    policy = make_policy("blendserve", columns, ENGINE)
    admitted = list(admissions(policy, seed, preempt))
    left = [request for request in admitted if policy.state.side[request] == COMPUTE]
    right = [request for request in admitted if policy.state.side[request] == MEMORY]
    assert left + right[::-1] == columns.by_density.tolist()


def test_scanners_start_with_both_ends_and_the_partition_of_both() -> None:
    columns = columns_of(40)
    policy = make_policy("blendserve", columns, ENGINE)
    state, transitions = policy.state, policy.transitions
    transitions.begin_step(state, 0, 0.0)
    ends = columns.by_density[[0, -1]]
    left, right = columns.density[ends]
    expected = memory_partition(float(ENGINE.kv_tokens), columns.root_density, left, right)
    # The density to reach is that of what waits: at the start, that of the whole.
    assert transitions.shares(state) == pytest.approx(expected)
    first = transitions.next_request(state, 0)
    transitions.admitted(state, first)
    second = transitions.next_request(state, 1)
    transitions.admitted(state, second)
    assert {int(first), int(second)} == set(ends.tolist())


def test_scanner_side_stays_inside_its_share() -> None:
    columns = columns_of(200, seed=3)
    policy = make_policy("blendserve", columns, ENGINE)
    state, transitions = policy.state, policy.transitions
    size = columns.new_prompt_tokens + columns.output_tokens / 2
    held: dict[int, list[int]] = {COMPUTE: [], MEMORY: []}
    checked = 0
    for step in range(400):
        transitions.begin_step(state, len(held[COMPUTE]) + len(held[MEMORY]), 1000.0)
        while True:
            running = len(held[COMPUTE]) + len(held[MEMORY])
            request = transitions.next_request(state, running)
            if request < 0:
                break
            transitions.admitted(state, request)
            side = int(state.side[request])
            held[side].append(request)
            if len(held[side]) > 1:
                assert size[held[side]].sum() <= transitions.shares(state)[side] * (1 + 1e-12)
                checked += 1
        for side in held:
            if len(held[side]) > 1 and step % 7 == side:
                transitions.finished(state, held[side].pop(0))
    assert checked > 50


def tidy_columns(n: int, seed: int) -> PolicyInput:
    """n requests whose sorted order is by density, and whose whole has the density it should."""
    columns = columns_of(n, seed)
    work = columns.density * columns.reads
    return replace(columns, root_density=float(work.sum() / columns.reads.sum()))


@given(st.integers(2, 80), st.integers(0, 99), st.sampled_from([1, 4, 30]))
@settings(max_examples=100)
def test_scanner_side_under_half_its_share_never_waits(n: int, seed: int, patience: int) -> None:
    """Whatever ended before: nobody is offered only when both sides are half full, or full."""
    columns = tidy_columns(n, seed)
    policy, chance = make_policy("blendserve", columns, ENGINE), random.Random(seed)
    state, transitions = policy.state, policy.transitions
    size = columns.new_prompt_tokens + columns.output_tokens / 2
    waiting = columns.by_density.tolist()
    running: list[int] = []
    while waiting:
        transitions.begin_step(state, len(running), ENGINE.kv_tokens / 2)
        while (request := int(transitions.next_request(state, len(running)))) >= 0:
            transitions.admitted(state, request)
            waiting.remove(request)
            running.append(request)
        if not waiting:
            return
        held = {side: sum(size[r] for r in running if state.side[r] == side) for side in (0, 1)}
        everything = held[COMPUTE] + held[MEMORY]
        for side, end in ((COMPUTE, 0), (MEMORY, -1)):
            share, after = state.sides[side].share_tokens, size[waiting[end]]
            half_full = held[side] >= share / 2 * (1 - 1e-9)
            fits = held[side] + after < share and everything + after < ENGINE.kv_tokens
            assert half_full or not fits
        for request in chance.sample(running, min(len(running), chance.randint(0, patience))):
            running.remove(request)
            transitions.finished(state, request)


@given(st.integers(2, 60), st.integers(0, 99))
@settings(max_examples=50)
def test_scanners_do_not_meter_a_nearly_empty_cache(n: int, seed: int) -> None:
    policy = make_policy("blendserve", tidy_columns(n, seed), ENGINE)
    state, transitions = policy.state, policy.transitions
    # Running requests that the policy knows of, but that hold next to nothing yet.
    running = 0
    while running < n - 1 and (request := transitions.next_request(state, running)) >= 0:
        transitions.admitted(state, request)
        running += 1
        budget = transitions.begin_step(state, running, 0.24 * ENGINE.kv_tokens)
        assert budget == ENGINE.max_num_batched_tokens
        metered = transitions.begin_step(state, running, 0.26 * ENGINE.kv_tokens)
        assert metered >= min(ENGINE.max_num_batched_tokens, PRICES.least_tokens - running)


def test_both_scanners_on_one_side_of_the_density_share_what_is_free() -> None:
    """The order need not be sorted: the least dense request stands in the middle."""
    n = 9
    density = np.array([4.0, 4.0, 4.0, 4.0, 0.01, 3.0, 3.0, 3.0, 3.0])
    columns = PolicyInput(
        depth_first=np.arange(n),
        family=np.arange(n),
        by_density=np.arange(n),
        prompt_tokens=np.full(n, 100.0),
        new_prompt_tokens=np.full(n, 100.0),
        outcomes=log_normal_outcomes(np.where(density < 1, 2000.0, 200.0), np.zeros(n)),
        density=density,
        root_density=1.0,
        prices=PRICES,
    )
    policy = make_policy("blendserve", columns, ENGINE)
    state, transitions = policy.state, policy.transitions
    transitions.begin_step(state, 0, 0.0)
    assert transitions.shares(state) == (ENGINE.kv_tokens / 2, ENGINE.kv_tokens / 2)
    left = int(transitions.next_request(state, 0))
    transitions.admitted(state, left)
    transitions.begin_step(state, 1, 200.0)
    # 200 tokens are taken: whoever comes may have the rest.
    free = ENGINE.kv_tokens - 200.0
    assert sorted(state.sides["share_tokens"].tolist()) == [free, ENGINE.kv_tokens]
    assert sorted(transitions.shares(state)) == [free / 2, 200.0 + free / 2]


def test_big_prompt_is_not_charged_at_the_pace_of_a_small_one() -> None:
    """A side of requests with 10 and 5,000 prompt tokens computes what they need on average."""
    prompts = np.array([5000.0, *np.full(20, 10.0)])
    outputs = np.full(21, 200.0)
    columns = PolicyInput(
        depth_first=np.arange(21),
        family=np.arange(21),
        by_density=np.arange(21),
        prompt_tokens=prompts,
        new_prompt_tokens=prompts,
        outcomes=log_normal_outcomes(outputs, np.zeros(21)),
        density=np.ones(21),
        root_density=1.0,
        prices=PRICES,
    )
    engine = replace(ENGINE, kv_tokens=10_200, max_num_batched_tokens=2048)
    policy = make_policy("blendserve", columns, engine)
    state, transitions = policy.state, policy.transitions
    state.side[0] = COMPUTE
    transitions.admitted(state, 0)
    budget = transitions.begin_step(state, 1, 5100.0)
    # It holds 5,100 of the 10,200 tokens, and all are its side's: two of it, 5,000 in 200 steps
    # each. The memory side has a share of 5,100 tokens: 5,100 / 110 requests, 10 in 200 steps.
    assert budget == int(np.ceil(2 * 5000 / 200 + 5100 / 110 * 10 / 200))


def test_empty_side_takes_a_request_of_any_size_even_after_rounding() -> None:
    """0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 is not 0: an empty side must know that it is empty."""
    outputs = np.full(5, 0.2)
    columns = PolicyInput(
        depth_first=np.arange(5),
        family=np.arange(5),
        by_density=np.array([4, 3, 2, 1, 0]),
        prompt_tokens=np.ones(5),
        new_prompt_tokens=np.array([0.1, 0.2, 0.3, 1e6, 0.1]) - outputs / 2,
        outcomes=log_normal_outcomes(outputs, np.zeros(5)),
        density=np.array([1.0, 1.0, 1.0, 1.0, 2.0]),
        root_density=1.5,
        prices=PRICES,
    )
    policy = make_policy("blendserve", columns, ENGINE)
    state, transitions = policy.state, policy.transitions
    transitions.begin_step(state, 0, 0.0)
    for request in (0, 1, 2):
        state.side[request] = MEMORY
        transitions.admitted(state, request)
    for request in (0, 1, 2):
        transitions.finished(state, request)
    transitions.begin_step(state, 1, 1.0)
    assert transitions.next_request(state, 1) == 3


def test_orders() -> None:
    columns = columns_of(30)

    def order(name: str, seed: int = 0) -> list[int]:
        return [int(row) for row in make_policy(name, columns, ENGINE, seed=seed).state.order]

    assert order("fcfs") == list(range(30))
    assert order("dfs") == columns.depth_first.tolist()
    assert order("blendserve") == columns.by_density.tolist()
    assert sorted(order("random")) == list(range(30))
    assert order("random", 1) == order("random", 1) != order("random", 2)
    assert make_policy("random", columns, ENGINE, seed=7).parameters["seed"] == 7


def test_two_policies_share_no_state() -> None:
    columns = columns_of(30)
    for name in POLICIES:
        first = list(admissions(make_policy(name, columns, ENGINE), 1))
        assert list(admissions(make_policy(name, columns, ENGINE), 1)) == first


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("blendserv", "did you mean 'blendserve'"),
        ("dsf", "did you mean 'dfs'"),
        ("FCFS", "did you mean 'fcfs'"),
        ("", "choose from fcfs"),
    ],
)
def test_unknown_policy(name: str, hint: str) -> None:
    with pytest.raises(BlendplanError) as refused:
        make_policy(name, columns_of(3), ENGINE)
    assert repr(name) in str(refused.value) and hint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"kv_tokens": 0}, "kv_tokens is 0; it must be at least 1"),
        ({"kv_tokens": 15}, "kv_tokens is 15, less than one block of 16 tokens"),
        ({"kv_tokens": 64, "max_num_seqs": 0}, "max_num_seqs is 0"),
        ({"kv_tokens": 64, "max_num_batched_tokens": -1}, "max_num_batched_tokens is -1"),
        ({"kv_tokens": 64, "block_size": 0}, "block_size is 0"),
    ],
)
def test_impossible_settings(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(BlendplanError, match=line):
        EngineLimits(**wrong)


def test_settings_count_whole_blocks() -> None:
    assert EngineLimits(kv_tokens=100, block_size=16).kv_blocks == 6
