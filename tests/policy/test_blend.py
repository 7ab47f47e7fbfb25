"""The policy `blend`: its parts against obvious ones, and what must hold for every request set."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm, truncnorm

from blendplan.cost.machine import machine
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.lengths.predicted import log_normal_outcomes
from blendplan.planning.prepare import Prepared, prepare
from blendplan.planning.run_policy import run_policy
from blendplan.planning.search import best_parameters
from blendplan.policy.blend.calendar import likely_length, projected_peak
from blendplan.policy.blend.learning import LEAST_WIDTH, MOST_SHIFT, PRIOR_COUNT, belief, learn
from blendplan.policy.blend.normal import normal_quantile, normal_share
from blendplan.policy.blend.start import BlendOptions, cohorts, efficient_sizes
from blendplan.policy.blend.steps import _step_size
from blendplan.policy.blend.timetable import timetable
from blendplan.policy.known import EFFICIENT, PolicyInput, StepPrices, step_prices
from blendplan.policy.make import make_policy
from blendplan.policy.registry import POLICIES
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.simulator.simulate import simulate_run
from blendplan.tree.build import build_tree
from blendplan.tree.families import sharing_families

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
        outcomes=log_normal_outcomes(np.asarray(output_tokens), np.full(n, spread)),
        density=np.full(n, density),
        root_density=density,
        prices=StepPrices(5e-5, 6e-8, 150),
    )


def job(seed: int, n: int = 300) -> Requests:
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
    outcomes = log_normal_outcomes(wrong, np.full(len(wrong), float(spread)))
    expected = replace(expected, outcomes=outcomes)
    return replace(prepared, expected=expected)


@given(st.floats(1e-4, 1 - 1e-4))
@settings(deadline=None)
def test_normal_distribution_agrees_with_scipy(share: float) -> None:
    quantile = normal_quantile(share)
    assert quantile == pytest.approx(norm.ppf(share), abs=1e-6)
    assert normal_share(quantile) == pytest.approx(share, rel=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 700)), min_size=1, max_size=12),
    st.integers(201, 900),
)
@settings(deadline=None, max_examples=30)
def test_projected_peak_is_that_of_the_known_ends(
    starts_and_rests: list[tuple[int, int]], output: int
) -> None:
    """Against adding up every step of the new request's life; ends round up to their bucket's."""
    now = max(step for step, _ in starts_and_rests)
    # All are long, and run for at least one step more.
    admissions = [(step, max(200, now - step) + rest) for step, rest in sorted(starts_and_rests)]
    outputs = [float(length) for _, length in admissions] + [float(output)]
    given_columns = columns(outputs)
    limits = EngineLimits(1_000_000, 64, 2048)
    policy = make_policy("blend", given_columns, limits)
    state, kernels = policy.state, policy.transitions
    clock = 0
    for request, (step, _) in enumerate(admissions):
        while clock < step:
            kernels.begin_step(state, 0, 0.0)
            clock += 1
        kernels.admitted(state, request)
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

    found = projected_peak(state, len(admissions))
    assert max(used(time, True) for time in range(now, now + output + 1)) - 1e-6 <= found
    assert found <= max(used(time, False) for time in range(now, rounded(now + output) + 1)) + 1e-6


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
    work = given_columns.output_tokens * (10.0 + given_columns.output_tokens / 2)
    for members in np.split(np.arange(n), range(family_size, n, family_size)):
        end = (start + late[order])[np.isin(order, members)].max()
        # Members start over a span that is the family's share of the run.
        span = steps * work[members].sum() / work.sum() if len(members) > 1 else 0.0
        assert end <= max(steps, span + late[members].max()) + 1e-6


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


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.0), (1, 0.5), (2, 1.5)])
def test_every_run_ends_however_wrong_predictions_are(seed: int, spread: float) -> None:
    prepared = prepare(job(seed), GPU)
    rng = np.random.default_rng(seed)
    for factors in (
        np.exp(rng.normal(0.0, max(spread, 1.0), len(prepared.workload))),
        np.full(len(prepared.workload), 0.02),
        np.full(len(prepared.workload), 50.0),
    ):
        wrong = predicted(prepared, factors, spread)
        policy = make_policy("blend", wrong.expected, GPU.limits)
        run = simulate_run(prepared.workload, policy, GPU.limits, GPU.table)
        assert np.array_equal(np.sort(run.admission), np.arange(len(prepared.workload)))
        assert (run.finish_s > run.start_s).all()


@pytest.mark.parametrize(("seed", "overlap"), [(0, 1.0), (1, 2.0), (2, np.inf)])
def test_known_lengths_need_hardly_a_preemption_and_gain_over_plain_orders(
    seed: int, overlap: float
) -> None:
    target = machine("a100-80g", cost=PRICES, overlap=overlap, kv_tokens=48_000, max_num_seqs=128)
    prepared = prepare(job(seed, 600), target)
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


def test_families_may_be_taken_apart() -> None:
    """One family with short and long outputs: as a family it goes to one side, else to both."""
    outputs = [10.0, 3_000.0] * 20
    mixed = columns(outputs, prompt_tokens=400.0, family=[0] * 40)
    mixed = replace(mixed, density=np.where(mixed.output_tokens > 100, 0.1, 20.0), root_density=1.0)
    for families, sides in ((True, 1), (False, 2)):
        policy = make_policy(
            "blend", mixed, GPU.limits, parameters=asdict(BlendOptions(families=families))
        )
        assert len(np.unique(policy.state.memory_side)) == sides


def test_effort_widens_the_search_and_zero_takes_the_defaults() -> None:
    prepared = prepare(job(0), GPU)
    defaults = best_parameters(prepared, GPU, POLICIES.get("blend"), effort=0)
    assert defaults == asdict(BlendOptions())
    times = [
        run_policy(prepared, GPU, "blend", effort=effort).run.makespan_s for effort in (0, 1, 2)
    ]
    assert times == sorted(times, reverse=True)


def test_projection_of_unsure_ends_keeps_their_standard_deviation_free() -> None:
    """Against the three equally likely ends of every request, each request by itself."""
    outputs = [1_000.0, 2_500.0, 1_600.0, 2_000.0]
    given_columns = columns(outputs, spread=0.8)
    limits = EngineLimits(1_000_000, 64, 2048)
    peaks = {}
    for caution in (0.0, 2.0):
        policy = make_policy(
            "blend", given_columns, limits, parameters=asdict(BlendOptions(caution=caution))
        )
        state, kernels = policy.state, policy.transitions
        kernels.begin_step(state, 0, 0.0)
        for request in range(3):
            kernels.admitted(state, request)
        peaks[caution] = projected_peak(state, 3)
    width, now = state.parameters.bucket_steps, 1

    def held(request: int, time: int, start: int) -> NDArray[np.float64]:
        own = request == 3
        ends = [now + likely_length(state, request, 0.0, third) for third in range(3)]
        alive = [start <= end if own else start // width <= int(end // width) for end in ends]
        last = min(float(time), ends[2]) if own else float(time)
        return np.array(alive, dtype=np.float64) * (10.0 + last - now)

    last_end = now + likely_length(state, 3, 0.0, 2)
    for caution, peak in peaks.items():
        found = 0.0
        for bucket in range(int(last_end // width) + 1):
            start, end = max(now, bucket * width), (bucket + 1) * width
            if start > last_end:
                continue
            each = [held(request, end, start) for request in range(4)]
            mean = sum(values.mean() for values in each)
            deviation = np.sqrt(sum(values.var() for values in each))
            found = max(found, mean + caution * deviation)
        assert peak == pytest.approx(found)
    assert peaks[2.0] > peaks[0.0]


def test_a_long_request_is_not_held_up_by_a_peak_after_its_end() -> None:
    outputs = [50_000.0, 50_000.0, 500.0]
    policy = make_policy("blend", columns(outputs), EngineLimits(100_000, 64, 2048))
    state, kernels = policy.state, policy.transitions
    for request in range(2):
        kernels.admitted(state, request)
    assert projected_peak(state, 0) > 100_000
    assert projected_peak(state, 2) < 5_000


@given(
    st.lists(st.tuples(st.floats(0.05, 20.0), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 12),
)
@settings(deadline=None, max_examples=40)
def test_learning_is_expectation_maximisation(
    factors: list[tuple[float, bool]], rounds: int
) -> None:
    """Against scipy: finished lengths as they are, running ones beyond what has elapsed."""
    spread, n = 0.6, len(factors)
    # No two predictions are equal, so all lean on the same cohort.
    expected = np.arange(1_000.0, 1_000.0 + n)
    policy = make_policy("blend", columns(expected, spread=spread), GPU.limits)
    state, kernels = policy.state, policy.transitions
    lengths = np.maximum(1.0, np.rint([factor for factor, _ in factors] * expected))
    for request in range(n):
        kernels.admitted(state, request)
    for request, (_, finished) in enumerate(factors):
        state.generated[request] = int(lengths[request])
        if finished:
            kernels.finished(state, request)
    observed = (np.log(lengths / expected) + spread**2 / 2) / spread
    done = np.array([finished for _, finished in factors])
    shift, width = 0.0, 1.0
    for _ in range(rounds):
        learn(state)
        least = (observed - shift) / width
        mean, variance = truncnorm.stats(least, np.inf, shift, width, moments="mv")
        first = np.where(done, observed, mean)
        second = np.where(done, observed**2, variance + mean**2)
        count = n + PRIOR_COUNT
        shift = first.sum() / count
        square = (second.sum() + PRIOR_COUNT) / count
        width = max(LEAST_WIDTH, np.sqrt(max(0.0, square - shift**2)))
        shift = min(MOST_SHIFT, max(-MOST_SHIFT, shift))
        found = state.learned[0].shift, state.learned[0].width
        assert found == pytest.approx((shift, width), rel=1e-3, abs=1e-3)


def test_a_cohort_learns_of_itself_and_leans_on_the_others_before() -> None:
    """Twenty requests of one prediction turn out four times as long, those of another as told."""
    outputs = [1_000.0] * 40 + [3_000.0] * 40 + [700.0]
    policy = make_policy("blend", columns(outputs, spread=0.5), GPU.limits)
    state, kernels = policy.state, policy.transitions
    for request, factor in [(i, 4.0) for i in range(20)] + [(i, 1.0) for i in range(40, 60)]:
        kernels.admitted(state, request)
        state.generated[request] = int(factor * outputs[request])
        kernels.finished(state, request)
    learn(state)
    middles = {i: np.exp(belief(state, i)[0]) / outputs[i] for i in (30, 70, 80)}
    assert middles[30] > 3.0
    assert middles[70] < 1.3
    assert middles[70] < middles[80] < middles[30]


def test_cohorts_are_requests_with_one_uncertain_prediction() -> None:
    known = columns([100.0] * 20)
    assert not cohorts(known).any()
    outputs = [100.0] * 20 + [5_000.0] * 9 + [70.0] * 7
    number = cohorts(columns(outputs, spread=0.4))
    # The second has more to read, the third is too small.
    assert number.tolist() == [2] * 20 + [1] * 9 + [0] * 7


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 6)), max_size=5), st.integers(30, 70))
@settings(deadline=None)
def test_efficient_sizes_are_the_nearest_on_either_side(
    pairs: list[tuple[int, int]], most: int
) -> None:
    ranges = [[first, first + more] for first, more in pairs]
    below, above = efficient_sizes(ranges, most)
    good = [n for n in range(most + 1) if any(a <= n <= b for a, b in ranges)] if ranges else None
    for n in range(most + 1):
        under = [size for size in good if size <= n] if good is not None else [n]
        over = [size for size in good if size >= n] if good is not None else [n]
        expected = (under[-1], over[0]) if under and over else (n, n)
        assert (below[n], above[n]) == expected


@pytest.mark.parametrize("cost", ["datasheet", "calibrated"])
def test_efficient_steps_cost_nearly_what_mixtures_of_others_do(cost: str) -> None:
    table = machine("a100-80g", cost=cost, max_num_batched_tokens=600).table
    prices, sizes = table.linear_s, np.arange(1, 601)
    ranges = step_prices(table).efficient_tokens
    for n in sizes[::37]:
        # The best mixture of a smaller and a larger step with that many tokens on average.
        smaller, larger = np.meshgrid(sizes[:n], sizes[n - 1 :], indexing="ij")
        share = (n - smaller) / np.maximum(1, larger - smaller)
        mixed = (prices[smaller] * (1 - share) + prices[larger] * share).min()
        efficient = not ranges or any(first <= n <= last for first, last in ranges)
        assert efficient == (prices[n] <= EFFICIENT * mixed * (1 + 1e-12))
    assert (cost == "datasheet") == (not ranges)


@pytest.mark.parametrize("wanted", [100.0, 256.0, 300.0, 511.0, 700.0, 9_000.0])
def test_steps_have_efficient_sizes_and_the_wanted_average(wanted: float) -> None:
    prices = StepPrices(5e-5, 6e-8, 300, [[1, 128], [256, 256], [512, 512], [2_048, 2_048]])
    given_columns = replace(columns([3_000.0] * 4), prices=prices)
    policy = make_policy("blend", given_columns, EngineLimits(1_000_000, 64, 2048))
    sizes = [_step_size(policy.state, wanted) for _ in range(2_000)]
    assert set(sizes) <= {100.0, 256.0, 512.0, 2_048.0}
    assert np.mean(sizes) == pytest.approx(min(wanted, 2_048.0), abs=1.0)
