"""The policy `blend`: its parts against obvious ones, and what must hold for every request set."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from blendplan.machine import machine
from blendplan.prediction import run_policy
from blendplan.preparation import Prepared, prepare
from blendplan.requests import Requests, requests_from_lists
from blendplan.schedule import BlendOptions, EngineSettings, PolicyInput, StepPrices, make_policy
from blendplan.schedule import blend as kernels
from blendplan.schedule.calendar import projected_peak
from blendplan.schedule.normal import normal_quantile, normal_share
from blendplan.schedule.timetable import timetable
from blendplan.search import best_options
from blendplan.simulator import simulate_run
from blendplan.tree import build_tree, sharing_families

# Gains are stated for the paper's prices.
PRICES = "datasheet"
GPU = machine("a100-80g", cost=PRICES, overlap=2.0, kv_tokens=48_000, max_num_seqs=128)


def columns(
    output_tokens: list[float] | NDArray[np.float64],
    *,
    prompt_tokens: float = 10.0,
    density: float = 0.1,
    spread: float = 0.0,
    family: list[int] | None = None,
) -> PolicyInput:
    """Requests in depth-first order as they are given, memory-heavy unless told otherwise."""
    n = len(output_tokens)
    rows = np.arange(n)
    return PolicyInput(
        depth_first=rows,
        family=rows if family is None else np.array(family),
        by_density=rows,
        prompt_tokens=np.full(n, prompt_tokens),
        new_prompt_tokens=np.full(n, prompt_tokens),
        output_tokens=np.asarray(output_tokens, dtype=np.float64),
        output_spread=np.full(n, spread),
        density=np.full(n, density),
        root_density=density,
        prices=StepPrices(5e-5, 6e-8, 150),
    )


def job(seed: int, n: int = 600) -> Requests:
    """A mixture of short answers after a common prefix, and of long outputs."""
    rng = np.random.default_rng(seed)
    prefixes = [rng.integers(0, 50_000, 400).tolist() for _ in range(5)]
    prompts, outputs = [], []
    for _ in range(n):
        if rng.random() < 0.85:
            own = rng.integers(0, 50_000, rng.integers(1_000, 2_000)).tolist()
            prompts.append(prefixes[rng.integers(5)] + own)
            outputs.append(int(rng.integers(1, 60)))
        else:
            prompts.append(rng.integers(0, 50_000, rng.integers(20, 100)).tolist())
            outputs.append(int(rng.integers(500, 4_000)))
    return requests_from_lists(prompts, output_tokens=outputs)


def predicted(prepared: Prepared, factors: NDArray[np.float64], spread: float) -> Prepared:
    """The same requests with predictions off by those factors; the truth stays."""
    expected = prepared.expected
    wrong = np.maximum(1.0, expected.output_tokens * factors)
    expected = replace(
        expected, output_tokens=wrong, output_spread=np.full(len(wrong), float(spread))
    )
    return replace(prepared, expected=expected)


@given(st.floats(1e-4, 1 - 1e-4))
@settings(deadline=None)
def test_normal_distribution_agrees_with_scipy(share: float) -> None:
    quantile = normal_quantile(share)
    assert quantile == pytest.approx(norm.ppf(share), abs=1e-6)
    assert normal_share(quantile) == pytest.approx(share, rel=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(201, 900)), min_size=1, max_size=12),
    st.integers(201, 900),
)
@settings(deadline=None, max_examples=60)
def test_projected_peak_is_that_of_the_known_ends(
    admissions: list[tuple[int, int]], output: int
) -> None:
    """Against adding up every step; the projection rounds ends up to the end of their bucket."""
    admissions.sort()
    outputs = [float(length) for _, length in admissions] + [float(output)]
    given_columns = columns(outputs)
    limits = EngineSettings(1_000_000, 64, 2048)
    policy = make_policy("blend", given_columns, limits)
    state, resident = policy.state.blend, policy.state.new_prompt_tokens
    clock = 0
    for request, (step, _) in enumerate(admissions):
        while clock < step:
            kernels.begin_step(state, resident, policy.state.output_tokens, 0.0)
            clock += 1
        kernels.admitted(state, resident, policy.state.output_tokens, request)
        # A request that has ended by now would have been released.
    now = admissions[-1][0]
    if any(step + length <= now for step, length in admissions):
        return
    width = state.parameters.bucket_steps

    def rounded(end: int) -> int:
        return (end // width + 1) * width

    def used(time: int, known_ends: bool) -> float:
        ends = [step + length for step, length in admissions]
        held = [
            10.0 + time - step
            for (step, _), end in zip(admissions, ends, strict=True)
            if time <= (end if known_ends else rounded(end))
        ]
        own_end = now + output if known_ends else rounded(now + output)
        return sum(held) + (10.0 + time - now if time <= own_end else 0.0)

    times = range(now, now + 1_000 + 2 * width)
    found = projected_peak(state, len(admissions), 10.0, float(output))
    assert max(used(time, True) for time in times) - 1e-6 <= found
    assert found <= max(used(time, False) for time in times) + 1e-6


@given(
    st.lists(st.floats(1, 5_000), min_size=1, max_size=40),
    st.floats(0, 1),
    st.integers(1, 6),
)
@settings(deadline=None)
def test_timetable_lets_everybody_end_in_time(
    outputs: list[float], spread: float, family_size: int
) -> None:
    n = len(outputs)
    given_columns = columns(outputs, spread=spread, family=[i // family_size for i in range(n)])
    steps = 20_000.0
    order, start = timetable(np.arange(n), given_columns, steps)
    assert sorted(order.tolist()) == list(range(n))
    assert (np.diff(start) >= 0).all()
    assert (start >= 0).all()
    late = given_columns.output_tokens * np.exp(1.2816 * spread - spread**2 / 2)
    if family_size == 1:
        assert (start + late[order] <= np.maximum(steps, late[order]) + 1e-6).all()


def test_timetable_spreads_equal_lengths_evenly() -> None:
    _, start = timetable(np.arange(100), columns([1_000.0] * 100), 101_000.0)
    assert np.allclose(np.diff(start), 1_000.0)


def test_families_keep_what_is_expensive_to_compute_twice() -> None:
    shared, other = [1] * 400, [2] * 4
    prompts = [[*shared, i + 10] for i in range(3)] + [[*other, *range(i, i + 300)] for i in (5, 9)]
    family = sharing_families(build_tree(requests_from_lists(prompts)), cost=0.01)
    assert len(set(family[:3].tolist())) == 1
    # Four tokens of six hundred are not worth keeping two requests together.
    assert family[3] != family[4]
    assert len(set(family.tolist())) == 3


@pytest.mark.parametrize("seed", range(3))
def test_families_are_runs_of_the_depth_first_order(seed: int) -> None:
    tree = build_tree(job(seed))
    family = sharing_families(tree)[tree.order]
    assert set(np.diff(family).tolist()) <= {0, 1}
    assert family[0] == 0


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("seed", range(2))
def test_every_run_ends_however_wrong_predictions_are(seed: int, spread: float) -> None:
    prepared = prepare(job(seed), GPU)
    rng = np.random.default_rng(seed)
    for factors in (
        np.exp(rng.normal(0.0, max(spread, 1.0), len(prepared.workload))),
        np.full(len(prepared.workload), 0.02),
        np.full(len(prepared.workload), 50.0),
    ):
        wrong = predicted(prepared, factors, spread)
        policy = make_policy("blend", wrong.expected, GPU.settings)
        run = simulate_run(prepared.workload, policy, GPU.settings, GPU.table)
        assert np.array_equal(np.sort(run.admission), np.arange(len(prepared.workload)))
        assert (run.finish_s > run.start_s).all()


@pytest.mark.parametrize(("seed", "overlap"), [(0, 1.0), (1, 2.0), (2, np.inf)])
def test_known_lengths_need_hardly_a_preemption_and_gain_over_plain_orders(
    seed: int, overlap: float
) -> None:
    target = machine("a100-80g", cost=PRICES, overlap=overlap, kv_tokens=48_000, max_num_seqs=128)
    prepared = prepare(job(seed), target)
    blend = run_policy(prepared, target, "blend").run
    plain = [run_policy(prepared, target, name).run for name in ("dfs", "random")]
    assert blend.preemptions < 0.2 * min(run.preemptions for run in plain)
    assert blend.makespan_s < 0.9 * min(run.makespan_s for run in plain)
    assert blend.prefix_sharing >= 0.98 * prepared.sharing


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=25),
    st.sampled_from([1.0, 2.0, np.inf]),
)
@settings(deadline=None, max_examples=25)
def test_never_worse_than_the_better_plain_order(
    lengths: list[tuple[int, int]], overlap: float
) -> None:
    rng = np.random.default_rng(0)
    requests = requests_from_lists(
        [rng.integers(0, 3, prompt).tolist() for prompt, _ in lengths],
        output_tokens=[output for _, output in lengths],
    )
    target = machine("a100-80g", overlap=overlap, kv_tokens=1_600, max_num_seqs=16)
    prepared = prepare(requests, target)
    times = {
        name: run_policy(prepared, target, name).run.makespan_s
        for name in ("dfs", "random", "blend")
    }
    assert times["blend"] <= min(times["dfs"], times["random"])


def test_effort_widens_the_search_and_zero_takes_the_defaults() -> None:
    prepared = prepare(job(0), GPU)
    assert best_options(prepared, GPU, effort=0) == BlendOptions()
    times = [
        run_policy(prepared, GPU, "blend", effort=effort).run.makespan_s for effort in (0, 1, 2)
    ]
    assert times == sorted(times, reverse=True)
