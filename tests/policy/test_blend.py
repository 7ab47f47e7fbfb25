"""The policy `blend`: its parts against obvious ones, and what must hold for every request set."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.cost.machine import machine
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.lengths.predicted import log_normal_outcomes
from blendplan.planning.prepare import Prepared, prepare
from blendplan.planning.run_policy import run_policy
from blendplan.planning.search import best_parameters
from blendplan.policy.blend.calendar import projected_peak
from blendplan.policy.blend.learning import MOST_SHIFT, OUTLIVING, PRIOR_COUNT, learn
from blendplan.policy.blend.revise import revise
from blendplan.policy.blend.start import BlendOptions, cohorts, efficient_sizes
from blendplan.policy.blend.steps import _step_size
from blendplan.policy.blend.timetable import spread_evenly
from blendplan.policy.known import EFFICIENT, PolicyInput, StepPrices, step_prices
from blendplan.policy.make import make_policy
from blendplan.policy.progress import Progress
from blendplan.policy.registry import POLICIES
from blendplan.policy.state_machine import Policy
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.simulator.simulate import simulate_run
from blendplan.tree.build import build_tree
from blendplan.tree.families import sharing_families
from tests.oracles.slow_blend_start import Edges, requests_of, set_starts

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


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 700)), min_size=1, max_size=12),
    st.integers(201, 900),
)
@settings(max_examples=30)
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
def test_starts_are_those_of_a_timetable_in_which_everybody_ends_in_time(
    outputs: list[float], spread: float, family_size: int
) -> None:
    n, steps = len(outputs), 20_000.0
    given_columns = columns(outputs, spread=spread, family=[i // family_size for i in range(n)])
    order = spread_evenly(np.arange(n), given_columns, steps)
    slow = requests_of(given_columns)
    for request in slow:
        request.memory_heavy = True
    set_starts(slow, steps, Edges())
    start = np.array([request.start for request in slow])
    assert sorted(order.tolist()) == list(range(n))
    assert (np.diff(start[order]) >= -1e-6).all()
    assert (start >= 0).all()
    work = given_columns.output_tokens * (10.0 + given_columns.output_tokens / 2)
    for members in np.split(np.arange(n), range(family_size, n, family_size)):
        late = given_columns.outcomes[members, -1]
        # Members start in turn over a span that is the family's share of the run.
        span = steps * work[members].sum() / work.sum() if len(members) > 1 else 0.0
        assert (start[members] + late).max() <= max(steps, span + late.max()) + 1e-6
        assert np.ptp(start[members]) <= span + 1e-6
        assert (np.diff(start[members]) >= 0).all()


def test_lengths_are_mixed_all_along_and_the_longest_begin_early() -> None:
    """Each tenth of the order has its share of each length; what takes the whole run goes first."""
    outputs = np.repeat([100.0, 400.0, 1_000.0], [600, 300, 100])
    rows = np.random.default_rng(0).permutation(1_000)
    order = spread_evenly(rows, columns(outputs), 50_000.0)
    for tenth in np.split(outputs[order], 10):
        for length, expected in ((100.0, 60), (400.0, 30), (1_000.0, 10)):
            assert abs(int((tenth == length).sum()) - expected) <= 2
    outputs[500] = 50_000.0
    assert spread_evenly(rows, columns(outputs), 50_000.0)[0] == 500


def test_members_of_a_family_run_close_together() -> None:
    """A family that is a tenth of the work is spread over about a tenth of the order."""
    family = np.repeat(np.arange(10), 30).tolist()
    order = spread_evenly(np.arange(300), columns([500.0] * 300, family=family), 100_000.0)
    for number in range(10):
        places = np.flatnonzero(order // 30 == number)
        assert (np.diff(order[places]) == 1).all()
        assert np.ptp(places) < 75


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
def test_known_lengths_gain_over_plain_orders_with_fewer_preemptions(
    seed: int, overlap: float
) -> None:
    target = machine("a100-80g", cost=PRICES, overlap=overlap, kv_tokens=48_000, max_num_seqs=128)
    prepared = prepare(job(seed, 600), target)
    blend = run_policy(prepared, target, "blend").run
    plain = [run_policy(prepared, target, name).run for name in ("dfs", "random")]
    assert blend.preemptions < 0.8 * min(run.preemptions for run in plain)
    assert blend.makespan_s < 0.9 * min(run.makespan_s for run in plain)
    assert blend.prefix_sharing >= 0.98 * prepared.sharing


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=25),
    st.sampled_from([1.0, 2.0, np.inf]),
)
@settings(max_examples=25)
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
    choice = best_parameters(prepared, GPU, POLICIES.get("blend"), effort=0)
    assert choice.parameters == asdict(BlendOptions())
    times = [
        run_policy(prepared, GPU, "blend", effort=effort).run.makespan_s for effort in (0, 1, 2)
    ]
    assert times == sorted(times, reverse=True)


def test_bursts_are_tried_where_prompts_make_a_step_dear() -> None:
    """And then pay: fewer steps have any, none of which is skipped for nothing."""
    prepared = prepare(job(0), GPU)
    least_s = float(GPU.table.linear_s[1] + GPU.table.step_s)
    found = {}
    for share in (0.0, 0.07, 1.2):
        table = GPU.table._replace(
            prefill_attention=np.array([*GPU.table.prefill_attention[:2], share * least_s])
        )
        expected = replace(prepared.expected, prices=step_prices(table))
        assert expected.prices.prefill_share == pytest.approx(share)
        dear, target = replace(prepared, expected=expected), replace(GPU, table=table)
        for effort in (0, 1):
            choice = best_parameters(dear, target, POLICIES.get("blend"), effort=effort)
            found[share, effort] = int(choice.parameters["burst_steps"])
        one_by_one = asdict(BlendOptions())
        runs = [
            simulate_run(
                dear.workload,
                make_policy("blend", dear.expected, target.limits, parameters=options),
                target.limits,
                table,
            )
            for options in (one_by_one, one_by_one | {"burst_steps": 8})
        ]
        assert (runs[1].makespan_s < runs[0].makespan_s) is (share > 1.0)
    assert [found[share, 0] for share in (0.0, 0.07, 1.2)] == [1, 1, 8]
    assert found[0.0, 1] == found[0.07, 1] == 1 < found[1.2, 1]


def test_a_queue_in_bursts_admits_in_one_of_so_many_steps() -> None:
    known = columns([20.0] * 40)
    limits = EngineLimits(1_000_000, 64, 2048)
    options = asdict(BlendOptions(order="dfs", burst_steps=5))
    policy = make_policy("blend", known, limits, parameters=options)
    state, kernels = policy.state, policy.transitions
    admitted = []
    for step in range(1, 31):
        assert kernels.begin_step(state, 1, 0.0) == 2048
        if (request := kernels.next_request(state, 1)) >= 0:
            kernels.admitted(state, request)
            admitted.append(step)
    assert admitted == [5, 10, 15, 20, 25, 30]
    assert kernels.begin_step(state, 0, 0.0) == 2048
    assert kernels.next_request(state, 0) == 6  # an idle engine is given something


def test_projection_of_unsure_ends_is_what_is_held_on_average() -> None:
    """Against ten equally likely ends of every request, each request by itself."""
    outputs = [1_000.0, 2_500.0, 1_600.0, 2_000.0]
    given_columns = columns(outputs, spread=0.8)
    policy = make_policy("blend", given_columns, EngineLimits(1_000_000, 64, 2048))
    state, kernels = policy.state, policy.transitions
    kernels.begin_step(state, 0, 0.0)
    for request in range(3):
        kernels.admitted(state, request)
    width, now = state.parameters.bucket_steps, 1
    ends = now + given_columns.outcomes
    found = 0.0
    for bucket in range(int(ends[3, -1] // width) + 1):
        start, end = max(now, bucket * width), (bucket + 1) * width
        alive = [(ends[request] // width >= bucket).mean() for request in range(3)]
        held = sum(alive) * (10.0 + end - now)
        held += (ends[3] >= start).mean() * (10.0 + min(float(end), ends[3, -1]) - now)
        found = max(found, held)
    assert projected_peak(state, 3) == pytest.approx(found)
    # Far less than if everybody became as long as they may.
    assert found < 0.7 * (40.0 + given_columns.outcomes[:, -1].sum())


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
@settings(max_examples=40)
def test_learning_is_expectation_maximisation(
    factors: list[tuple[float, bool]], rounds: int
) -> None:
    """Finished lengths count as they are, running ones with what may be beyond what has elapsed."""
    n = len(factors)
    given_columns = columns(np.arange(1_030.0, 1_030.0 + n), spread=0.6)
    policy = make_policy("blend", given_columns, GPU.limits)
    state, kernels = policy.state, policy.transitions
    lengths = np.maximum(1.0, np.rint([factor * 1_030.0 for factor, _ in factors]))
    for request in range(n):
        kernels.admitted(state, request)
    for request, (_, finished) in enumerate(factors):
        state.generated[request] = int(lengths[request])
        if finished:
            kernels.finished(state, request)
    own = shift = 0.0
    for _ in range(rounds):
        observed = []
        for outcomes, length, (_, finished) in zip(
            given_columns.outcomes, lengths, factors, strict=True
        ):
            longer = np.exp(own) * outcomes[np.exp(own) * outcomes > length]
            likely = longer if len(longer) else np.array([OUTLIVING * length])
            log_length = np.log(length) if finished else np.log(likely).mean()
            observed.append(log_length - np.log(outcomes).mean())
        shift = np.clip(sum(observed) / (n + PRIOR_COUNT), -MOST_SHIFT, MOST_SHIFT)
        own = (sum(observed) + PRIOR_COUNT * shift) / (n + PRIOR_COUNT)
        own = np.clip(own, -MOST_SHIFT, MOST_SHIFT)
        learn(state)
        (cohort,) = set(cohorts(given_columns).tolist())
        found = state.learned[0].shift, state.learned[cohort].shift
        assert found == pytest.approx((shift, own))


def test_a_cohort_learns_of_itself_and_leans_on_the_others_before() -> None:
    """Twenty requests of one prediction turn out four times as long, those of another as told."""
    outputs = [1_000.0] * 40 + [3_000.0] * 40 + [500.0]
    policy = make_policy("blend", columns(outputs), GPU.limits)
    state, kernels = policy.state, policy.transitions
    for request, factor in [(i, 4.0) for i in range(20)] + [(i, 1.0) for i in range(40, 60)]:
        kernels.admitted(state, request)
        state.generated[request] = int(factor * outputs[request])
        kernels.finished(state, request)
    learn(state)
    factors = {i: np.exp(state.learned[state.cohort[i]].shift) for i in (30, 70, 80)}
    # Eight that are believed to be as all others weigh against twenty.
    assert factors[30] > 2.5
    assert factors[70] < 1.3
    assert factors[70] < factors[80] < factors[30]


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_learning_is_not_led_astray_by_the_short_ones_that_finish_first(
    factor: float, spread: float
) -> None:
    """All begin together, so in the middle of the run only the shorter half has finished."""
    rng = np.random.default_rng(7)
    known = columns([1_000.0] * 400, spread=spread)
    policy = make_policy("blend", known, EngineLimits(10_000_000, 400, 2048))
    state, kernels = policy.state, policy.transitions
    likely = known.outcomes[0] * np.exp(rng.normal(0.0, 0.05, (400, 1)))
    lengths = np.rint(factor * likely[np.arange(400), rng.integers(0, 10, 400)])
    for request in range(400):
        kernels.admitted(state, request)
    halfway = int(np.median(lengths))
    for step in range(1, int(lengths.max()) + 1):
        kernels.begin_step(state, int((lengths >= step).sum()), 0.0)
        for request in np.flatnonzero(lengths == step).tolist():
            kernels.finished(state, request)
        if step == halfway:
            learn(state)
            middle = float(state.learned[state.cohort[0]].shift)
    learn(state)
    end = float(state.learned[state.cohort[0]].shift)
    assert middle == pytest.approx(np.log(factor), abs=0.25)
    assert end == pytest.approx(np.log(factor), abs=0.1)


def test_cohorts_are_requests_with_predictions_about_as_long() -> None:
    """To half a power of two, however sure; the last one has everything that is longer."""
    number = cohorts(columns([0.5, 1.0, 1.4, 1.5, 2.0, 100.0, 110.0, 120.0, 1e7, 1e9]))
    assert number.tolist() == [1, 1, 1, 2, 3, 14, 14, 14, 39, 39]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 6)), max_size=5), st.integers(30, 70))
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


class Chaos:
    """An engine that admits, preempts and ends requests as it likes, and says any use of memory."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.policy = policy
        self.rng = np.random.default_rng(seed)
        self.running: list[int] = []
        self.preempted: list[int] = []
        self.admission: list[int] = []

    def step(self) -> None:
        rng, kernels, state = self.rng, self.policy.transitions, self.policy.state
        budget = kernels.begin_step(state, len(self.running), float(rng.uniform(0.0, 3_000.0)))
        assert 1 <= budget <= 64
        for request in list(self.running):
            if rng.random() < 0.1:
                self.running.remove(request)
                if rng.random() < 0.5:
                    kernels.finished(state, request)
                else:
                    kernels.preempted(state, request)
                    self.preempted.append(request)
        while rng.random() < 0.7:
            if self.preempted:
                request = self.preempted.pop()
            else:
                request = kernels.next_request(state, len(self.running))
                if request < 0:
                    # An idle engine is always given something.
                    assert self.running or len(self.admission) == len(state.started)
                    break
                if rng.random() < 0.2:
                    break
                self.admission.append(request)
            kernels.admitted(state, request)
            self.running.append(request)


@given(
    st.lists(st.tuples(st.floats(1, 300), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 1_000),
)
@settings(max_examples=40)
def test_whatever_the_engine_does_nobody_is_left_out_or_overtaken_on_its_side(
    lengths: list[tuple[float, bool]], seed: int
) -> None:
    density = np.array([50.0 if compute else 0.1 for _, compute in lengths])
    known = columns([length for length, _ in lengths], spread=0.5)
    known = replace(known, density=density, root_density=1.0)
    policy = make_policy("blend", known, EngineLimits(1_000, 16, 64))
    chaos = Chaos(policy, seed)
    for _ in range(20_000):
        if len(chaos.admission) == len(lengths):
            break
        chaos.step()
    assert sorted(chaos.admission) == list(range(len(lengths)))
    memory_side = policy.state.memory_side
    assert np.array_equal(memory_side, density < 1.0)
    for order in (policy.state.memory_order, policy.state.compute_order):
        members = set(order.tolist())
        assert [request for request in chaos.admission if request in members] == order.tolist()


def test_the_limit_rises_while_memory_is_empty_and_falls_when_much_is_lost() -> None:
    """Requests that are predicted far too long hold others back; later, most work is lost."""
    policy = make_policy("blend", columns([40_000.0] * 100), GPU.limits)
    state, kernels = policy.state, policy.transitions
    width = state.parameters.bucket_steps
    kernels.admitted(state, kernels.next_request(state, 0))
    limits = [float(state.now[0].limit)]
    for lost in (False, True):
        for step in range(1, 6 * width + 1):
            kernels.begin_step(state, 1, 0.3 * 48_000)
            assert kernels.next_request(state, 1) < 0
            if lost:
                kernels.preempted(state, 0)
                kernels.admitted(state, 0)
            if step % width == 0:
                limits.append(float(state.now[0].limit))
            kernels.next_request(state, 1)
    change = np.diff(limits)
    assert (change[1:6] > 0).all(), limits
    assert (change[7:] < 0).all(), limits


def test_an_early_revision_is_a_fresh_start() -> None:
    """Before the first step, going over to other predictions is the policy made from them."""
    prepared = prepare(job(3), GPU)
    rng = np.random.default_rng(3)
    n = len(prepared.workload)
    wrong = predicted(prepared, np.exp(rng.normal(0.0, 1.5, n)), 0.5)
    nobody = np.zeros(n, dtype=np.bool_)
    progress = Progress(np.empty(0, dtype=np.int64), nobody, nobody, np.zeros(n, dtype=np.int32))
    runs = []
    for changed in (False, True):
        policy = make_policy("blend", (wrong if changed else prepared).expected, GPU.limits)
        if changed:
            policy = revise(policy, prepared.expected, progress, GPU.limits)
        runs.append(simulate_run(prepared.workload, policy, GPU.limits, GPU.table))
    assert np.array_equal(runs[0].admission, runs[1].admission)
    assert np.array_equal(runs[0].finish_s, runs[1].finish_s)


@pytest.mark.parametrize("seed", range(3, 6))
def test_lengths_learned_in_the_middle_of_a_run_shorten_it(seed: int) -> None:
    """Short and long are taken for each other; a fifth of the way the truth is learned."""
    prepared = prepare(job(seed, 600), GPU)
    outputs = prepared.expected.output_tokens
    wrong = predicted(prepared, np.where(outputs > 100, 20.0, 1_000.0) / outputs, 0.5)
    told: list[Progress] = []

    def learned(policy: Policy, progress: Progress) -> Policy:
        if not told and progress.admitted.mean() > 0.1:
            told.append(progress)
            return revise(policy, prepared.expected, progress, GPU.limits)
        return policy

    times = []
    for change in (None, learned):
        policy = make_policy("blend", wrong.expected, GPU.limits)
        run = simulate_run(prepared.workload, policy, GPU.limits, GPU.table, revise=change)
        assert np.array_equal(np.sort(run.admission), np.arange(600))
        times.append(run.makespan_s)
    assert told
    assert times[1] < 0.92 * times[0], times


def test_a_revision_knows_what_running_requests_have_left() -> None:
    """Long requests run and short ones wait: prefill must not rush past the memory work."""
    known = columns([3_000.0] * 20 + [5.0] * 200, prompt_tokens=500.0)
    known = replace(known, density=np.repeat([0.1, 20.0], [20, 200]), root_density=1.0)
    limits = EngineLimits(200_000, 64, 2048)
    policy = make_policy("blend", known, limits)
    state, kernels = policy.state, policy.transitions
    for _ in range(100):
        before = kernels.begin_step(state, 20, 12_000.0)
        while (request := kernels.next_request(state, 1)) >= 0 and request < 20:
            kernels.admitted(state, request)
    running, nobody = np.arange(20), np.zeros(220, dtype=np.bool_)
    progress = Progress(running, np.arange(220) < 20, nobody, np.zeros(220, dtype=np.int32))
    policy = revise(policy, known, progress, limits)
    after = policy.transitions.begin_step(policy.state, 20, 12_000.0)
    assert after < 1.5 * before
