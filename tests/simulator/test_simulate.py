"""The simulated engine: step by step beside the slow one, and what holds for every run."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.lengths.predicted import log_normal_outcomes
from blendplan.planning.bound import least_prefill, makespan_bound
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.make import make_policy
from blendplan.policy.registry import POLICIES
from blendplan.policy.state_machine import Policy
from blendplan.simulator.series import SERIES
from blendplan.simulator.simulate import SimulatedRun, simulate_run
from blendplan.tree.build import build_tree
from blendplan.tree.sharing import optimal_sharing
from tests.oracles.layer_kinds import HOLDINGS, REACHES
from tests.oracles.lockstep import (
    FastEngine,
    assert_same_state,
    input_order,
    odd_prices,
    price_of,
    requests_of,
    workload_of,
)
from tests.oracles.slow_blend_start import layers_of
from tests.oracles.slow_engine import SlowEngine, SlowPolicy
from tests.oracles.slow_scanners import SlowScanners

OVERLAPS = (1.0, 2.0, 3.5, math.inf)
# Sums and thirds of these are exact, so that both engines see the same ties.
QUARTERS = st.integers(1, 60).map(lambda n: n / 4)


@dataclass(frozen=True)
class Job:
    """A small workload and the engine that runs it."""

    prompts: list[list[int]]
    outputs: list[int]
    engine: EngineLimits

    def slow(self, policy: SlowPolicy | None = None) -> SlowEngine:
        return SlowEngine(
            self.prompts,
            self.outputs,
            blocks=self.engine.kv_blocks,
            block_size=self.engine.block_size,
            max_num_batched_tokens=self.engine.max_num_batched_tokens,
            max_num_seqs=self.engine.max_num_seqs,
            policy=policy,
            async_scheduling=self.engine.async_scheduling,
        )

    def fast(self, policy: Policy, overlap: float = 1.0, reach: Reach = ALL_TOKENS) -> FastEngine:
        workload = workload_of(self.prompts, self.outputs, self.engine.block_size)
        return FastEngine(workload, self.engine, policy, odd_prices(self.engine, overlap, reach))

    def run(
        self, policy: Policy | None = None, overlap: float = 1.0, reach: Reach = ALL_TOKENS
    ) -> SimulatedRun:
        workload = workload_of(self.prompts, self.outputs, self.engine.block_size)
        policy = policy or input_order(len(self.prompts), self.engine)
        return simulate_run(workload, policy, self.engine, odd_prices(self.engine, overlap, reach))


@st.composite
def jobs(draw: st.DrawFn, most_requests: int = 10) -> Job:
    """Requests that share prefixes or are equal, in a cache that barely holds the longest."""
    tokens = st.integers(0, 1)
    stems = draw(st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=3))
    stem = st.sampled_from(stems)
    tail = st.lists(tokens, min_size=1, max_size=6)
    prompt = st.one_of(stem, st.builds(lambda a, b: a + b, stem, tail), tail)
    prompts = draw(st.lists(prompt, min_size=1, max_size=most_requests))
    n = len(prompts)
    outputs = draw(st.lists(st.integers(1, 14), min_size=n, max_size=n))
    block = draw(st.integers(1, 4))
    longest = max(len(p) + d - 1 for p, d in zip(prompts, outputs, strict=True))
    blocks = max(1, -(-longest // block)) + draw(st.integers(0, 6))
    slots = draw(st.integers(1, 5))
    asynchronous = draw(st.booleans())
    engine = EngineLimits(
        kv_tokens=blocks * block + draw(st.integers(0, block - 1)),
        max_num_seqs=slots,
        # vLLM wants a token for each of those that run; synchronous steps are right without.
        max_num_batched_tokens=draw(st.integers(slots if asynchronous else 1, 20)),
        block_size=block,
        async_scheduling=asynchronous,
    )
    return Job(prompts, outputs, engine)


@st.composite
def beliefs(draw: st.DrawFn, n: int) -> PolicyInput:
    """What a policy believes of n requests; it need not be true."""
    column = st.lists(QUARTERS, min_size=n, max_size=n).map(np.array)
    return PolicyInput(
        depth_first=np.arange(n),
        family=np.cumsum([0, *draw(st.lists(st.integers(0, 1), min_size=n - 1, max_size=n - 1))]),
        by_density=np.array(draw(st.permutations(range(n))), dtype=np.int64),
        prompt_tokens=draw(column),
        new_prompt_tokens=draw(column),
        outcomes=log_normal_outcomes(draw(column), np.full(n, draw(st.sampled_from([0.0, 0.7])))),
        density=draw(column),
        root_density=draw(QUARTERS),
        prices=StepPrices(token_s=1.0, read_s=0.5, least_tokens=draw(st.integers(1, 20))),
        holding=draw(st.sampled_from(HOLDINGS)),
    )


def slow_scanners(columns: PolicyInput, engine: EngineLimits) -> SlowScanners:
    layers = layers_of(columns)
    rows = zip(
        columns.prompt_tokens.tolist(),
        columns.new_prompt_tokens.tolist(),
        columns.output_tokens.tolist(),
        strict=True,
    )
    return SlowScanners(
        columns.by_density.tolist(),
        prompt=columns.new_prompt_tokens.tolist(),
        slots=[layers.grows * (n + d / 2) + layers.flat_slots(p + d) for p, n, d in rows],
        output=columns.output_tokens.tolist(),
        density=columns.density.tolist(),
        reads=columns.reads.tolist(),
        root_density=columns.root_density,
        kv_tokens=float(engine.kv_tokens),
        least_tokens=columns.prices.least_tokens,
        max_num_batched_tokens=engine.max_num_batched_tokens,
    )


def run_side_by_side(slow: SlowEngine, fast: FastEngine) -> None:
    """Step both engines to the end; every state, and the clock, must agree."""
    clock_s = compute_s = memory_s = 0.0
    starts: dict[int, float] = {}
    finishes: dict[int, float] = {}
    engine = fast.engine
    done = not slow.prompts
    while not done:
        taken = len(slow.steps)
        slow.step()
        done = fast.step()
        assert_same_state(fast, slow)
        if len(slow.steps) == taken:
            continue
        step = slow.steps[-1]
        assert len(step.running) <= slow.max_num_seqs
        assert step.prefill_tokens + step.decodes <= slow.max_num_batched_tokens
        for request, _ in step.admitted:
            starts.setdefault(request, clock_s)
        of_step = price_of(step, fast.table)
        compute_s, memory_s, clock_s = (
            total + part
            for total, part in zip((compute_s, memory_s, clock_s), of_step, strict=True)
        )
        for request in slow.under_way:
            if engine.generated[request] == slow.output_tokens[request]:
                finishes[request] = clock_s
    assert slow.finished == len(slow.prompts)
    now = engine.now[0]
    seconds = [now.clock_s, now.compute_s, now.memory_s]
    assert seconds == pytest.approx([clock_s, compute_s, memory_s], rel=1e-12)
    rows = range(len(slow.prompts))
    assert engine.span_s[:, 0].tolist() == pytest.approx([starts[row] for row in rows], rel=1e-12)
    assert engine.span_s[:, 1].tolist() == pytest.approx([finishes[row] for row in rows], rel=1e-12)
    for mixed, steps in ((True, engine.mixed_steps), (False, engine.decode_steps)):
        sizes = [
            step.prefill_tokens + step.decodes
            for step in slow.steps
            if bool(step.prefill_tokens) == mixed
        ]
        assert steps.tolist() == np.bincount(sizes, minlength=len(steps)).tolist()
    event(f"preempted {'nobody' if slow.preemptions == 0 else 'somebody'}")
    event(f"prefix hits: {any(slow.cached_tokens.values())}")


@given(jobs(), st.sampled_from(OVERLAPS), st.sampled_from(REACHES))
@settings(max_examples=300)
def test_queue_beside_the_slow_engine(job: Job, overlap: float, reach: Reach) -> None:
    policy = input_order(len(job.prompts), job.engine)
    run_side_by_side(job.slow(), job.fast(policy, overlap, reach))


@given(st.data())
@settings(max_examples=300)
def test_scanners_beside_slow_scanners(data: st.DataObject) -> None:
    job = data.draw(jobs())
    columns = data.draw(beliefs(len(job.prompts)))
    oracle = slow_scanners(columns, job.engine)
    fast = job.fast(make_policy("blendserve", columns, job.engine))
    run_side_by_side(job.slow(oracle), fast)
    sides = ["compute" if side == 0 else "memory" for side in fast.policy.state.side]
    assert sides == [oracle.side_of[row] for row in range(len(sides))]


@given(jobs(), st.data())
@settings(max_examples=150)
def test_what_holds_for_every_run(job: Job, data: st.DataObject) -> None:
    n = len(job.prompts)
    overlap = data.draw(st.sampled_from(OVERLAPS))
    columns = data.draw(beliefs(n))
    name = data.draw(st.sampled_from(POLICIES.names()))
    reach = data.draw(st.sampled_from(REACHES))
    run = job.run(make_policy(name, columns, job.engine), overlap, reach)

    assert sorted(run.admission.tolist()) == list(range(n))
    assert np.all(np.diff(run.admission_step[run.admission]) >= 0)
    assert np.all(np.diff(run.start_s[run.admission]) >= 0)
    assert np.all(run.start_s < run.finish_s)
    assert run.finish_s.max() == run.makespan_s
    prompt_tokens = np.array([len(prompt) for prompt in job.prompts])
    assert np.all(run.cached_tokens >= 0) and np.all(run.cached_tokens < prompt_tokens)
    assert run.prompt_tokens == prompt_tokens.sum()
    assert run.output_tokens == sum(job.outputs)
    if run.preemptions == 0:
        assert run.prefill_tokens == run.prompt_tokens - run.cached_tokens.sum()

    series = run.series
    assert tuple(series) == SERIES
    assert series["kv_tokens"].max() <= job.engine.kv_tokens
    assert series["running"].max() <= job.engine.max_num_seqs
    computed = series["prefill_tokens"] + series["decode_tokens"]
    assert computed.min() >= 1 and computed.max() <= job.engine.max_num_batched_tokens
    assert len(run.decode_steps) == job.engine.max_num_seqs + 1
    assert len(run.mixed_steps) == job.engine.max_num_batched_tokens + 1
    assert run.mixed_steps.sum() + run.decode_steps.sum() == run.steps

    tree = build_tree(requests_of(job.prompts, job.outputs))
    assert run.prefix_sharing <= optimal_sharing(tree) + 1e-12
    bound = makespan_bound(
        odd_prices(job.engine, overlap, reach),
        prompt_tokens=prompt_tokens,
        output_tokens=job.outputs,
        prefill=least_prefill(tree, reach),
        kv_capacity_tokens=job.engine.kv_tokens,
        preemptions=run.preemptions,
    )
    assert 0 < bound.makespan_s <= run.makespan_s * (1 + 1e-12)
    assert bound.steps <= run.steps


@given(jobs(), st.sampled_from(OVERLAPS))
@settings(max_examples=50)
def test_asynchronous_scheduling_changes_nothing_where_nobody_waits(
    job: Job, overlap: float
) -> None:
    prompts, outputs = sum(map(len, job.prompts)), sum(job.outputs)
    block = job.engine.block_size
    roomy = EngineLimits((prompts + outputs + len(job.outputs)) * block, 10, prompts + 10, block)
    runs = [
        replace(job, engine=replace(roomy, async_scheduling=asynchronous)).run(overlap=overlap)
        for asynchronous in (False, True)
    ]
    assert runs[0].preemptions == 0
    for name, value in vars(runs[0]).items():
        if name != "series":
            assert np.array_equal(value, getattr(runs[1], name)), name


@pytest.mark.parametrize("output_tokens", [1, 511, 512, 513, 1024, 1025, 5000])
def test_series_adds_up_to_the_totals(output_tokens: int) -> None:
    engine = EngineLimits(kv_tokens=40_000, max_num_seqs=4, max_num_batched_tokens=64)
    outputs = [output_tokens, 1, max(1, output_tokens // 3), 7, 300]
    job = Job([[row] * 200 for row in range(5)], outputs, engine)
    run = job.run(overlap=2.0)
    assert run.preemptions == 0
    series, points = run.series, len(run.series["end_s"])
    per_point = 1
    while run.steps > per_point * 512:
        per_point *= 2
    assert points == -(-run.steps // per_point) <= 512
    steps = np.full(points, per_point)
    steps[-1] = run.steps - per_point * (points - 1)
    assert (series["step_s"] * steps).sum() == pytest.approx(run.makespan_s)
    assert (series["compute_s"] * steps).sum() == pytest.approx(run.compute_s)
    assert (series["memory_s"] * steps).sum() == pytest.approx(run.memory_s)
    assert (series["prefill_tokens"] * steps).sum() == pytest.approx(run.prefill_tokens)
    decodes = sum(outputs) - len(outputs)
    assert (series["decode_tokens"] * steps).sum() == pytest.approx(decodes)
    computed = sum(np.arange(len(steps)) @ steps for steps in (run.mixed_steps, run.decode_steps))
    assert computed == run.prefill_tokens + decodes
    np.testing.assert_allclose(np.cumsum(series["step_s"] * steps), series["end_s"])


def test_series_beside_plain_sums() -> None:
    engine = EngineLimits(kv_tokens=640, max_num_seqs=3, max_num_batched_tokens=24)
    outputs = [int(d) for d in np.random.default_rng(5).integers(1, 400, 12)]
    job = Job([[row % 3] * (20 + row) for row in range(12)], outputs, engine)
    slow = job.slow()
    slow.run()
    run = job.run()
    assert len(slow.steps) == run.steps > 512
    per_point = 2 ** math.ceil(math.log2(run.steps / 512))
    groups = [slow.steps[at : at + per_point] for at in range(0, run.steps, per_point)]
    used = [[engine.kv_blocks - step.free_blocks for step in group] for group in groups]
    expected = {
        "kv_tokens": [engine.block_size * np.mean(blocks) for blocks in used],
        "running": [np.mean([len(step.running) for step in group]) for group in groups],
        "prefill_tokens": [np.mean([step.prefill_tokens for step in group]) for group in groups],
        "decode_tokens": [np.mean([step.decodes for step in group]) for group in groups],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(run.series[name], values, err_msg=name)


def test_two_runs_are_equal_to_the_bit() -> None:
    engine = EngineLimits(kv_tokens=800, max_num_seqs=6, max_num_batched_tokens=48)
    job = Job(
        [[row % 4] * (10 + 3 * row) for row in range(30)],
        [5 * row + 1 for row in range(30)],
        engine,
    )
    first, second = job.run(overlap=2.0), job.run(overlap=2.0)
    assert first.preemptions > 0
    for name, value in vars(first).items():
        again = getattr(second, name)
        if name == "series":
            assert all(np.array_equal(value[key], again[key]) for key in value)
        else:
            assert np.array_equal(value, again), name


def test_no_request() -> None:
    run = Job([], [], EngineLimits(kv_tokens=64)).run()
    assert (run.steps, run.preemptions, run.makespan_s) == (0, 0, 0.0)
    assert (run.throughput_tokens_per_s, run.prefix_sharing) == (0.0, 0.0)
    assert run.turnaround_s() == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    assert len(run.admission) == 0
    assert all(len(values) == 0 for values in run.series.values())


def test_one_request() -> None:
    engine = EngineLimits(kv_tokens=64, max_num_batched_tokens=8)
    run = Job([list(range(20))], [4], engine).run()
    # Chunks of 8, 8 and 4, of which the last samples; then three decodes.
    assert run.steps == 3 + 3
    assert np.flatnonzero(run.mixed_steps).tolist() == [4, 8]
    assert (run.mixed_steps[8], run.mixed_steps[4], run.decode_steps[1]) == (2, 1, 3)
    table = odd_prices(engine, 1.0)
    prefill_s = sum(float(table.linear_s[tokens]) for tokens in (8, 8, 4))
    prefill_s += 0.0013 * 210 + 0.017 * 20 + 3 * 0.19 + float(table.head_s[1])
    decode_s = 3 * float(table.linear_s[1] + table.head_s[1])
    assert run.compute_s == pytest.approx(prefill_s + decode_s)
    assert run.memory_s == pytest.approx(0.0071 * (21 + 22 + 23) + 3 * (0.023 + 0.031 + 0.37))
    assert run.makespan_s == pytest.approx(run.compute_s + run.memory_s + 6 * 0.05)
    assert run.throughput_tokens_per_s == pytest.approx(24 / run.makespan_s)


def test_identical_requests_hit_all_but_the_last_block() -> None:
    engine = EngineLimits(kv_tokens=640, max_num_batched_tokens=4096)
    run = Job([[9] * 48] * 5, [3] * 5, engine).run()
    # Blocks can be shared within the step that fills them; 47 of 48 tokens may be hit.
    assert run.cached_tokens.tolist() == [0, 32, 32, 32, 32]
    assert run.steps == 3


def test_request_that_exactly_fills_the_cache_runs() -> None:
    # The last generated token is never written to the cache.
    engine = EngineLimits(kv_tokens=32, block_size=16)
    assert Job([[1] * 20], [13], engine).run().steps == 13


@pytest.mark.parametrize(("prompt", "output"), [(20, 14), (33, 1), (1, 33), (5000, 5000)])
def test_request_that_never_fits_is_refused(prompt: int, output: int) -> None:
    engine = EngineLimits(kv_tokens=32, block_size=16)
    with pytest.raises(BlendplanError) as refused:
        Job([[1] * 4, [2] * prompt], [2, output], engine).run()
    line = str(refused.value)
    assert "\n" not in line
    assert "1 of 2 requests" in line and "row 1" in line
    assert f"{prompt} prompt and {output} output" in line and "32 tokens" in line


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    engine = EngineLimits(kv_tokens=64_000, max_num_seqs=1)
    job = Job([[1] * 8, [2] * 8], [15_000, 15_000], engine)
    policy = input_order(2, engine)
    table = odd_prices(engine, 1.0)
    simulate_run(
        workload_of(job.prompts, job.outputs, 16),
        policy,
        engine,
        table,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2)]


def test_turnaround_is_quantiles_of_the_finish_times() -> None:
    engine = EngineLimits(kv_tokens=6400, max_num_seqs=2)
    run = Job([[row] * 30 for row in range(40)], list(range(1, 41)), engine).run()
    ordered = sorted(run.finish_s.tolist())
    assert ordered[19] <= run.turnaround_s()["p50"] <= ordered[20]
    assert run.turnaround_s()["p95"] <= run.turnaround_s()["p99"] <= run.makespan_s
