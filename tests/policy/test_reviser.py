"""`Reviser` and `revise`: what a run teaches, and how `blend` goes over to it."""

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blendplan.cost.machine import machine
from blendplan.planning.prepare import Prepared, prepare
from blendplan.planning.run_policy import run_policy
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.blend.timetable import arrange
from blendplan.policy.make import make_policy
from blendplan.policy.progress import Progress
from blendplan.policy.reviser import MOST_REVISIONS, Reviser, Unsure, steps_between_looks
from blendplan.policy.state_machine import MEMORY, Policy
from blendplan.requests.in_memory import requests_from_lists
from blendplan.simulator.simulate import SimulatedRun, simulate_run

TARGET = machine(
    "a100-80g", "llama-3.1-8b", kv_tokens=6_000, max_num_seqs=32, max_num_batched_tokens=256
)


def two_kinds(requests: int = 240, seed: int = 0) -> tuple[Prepared, np.ndarray]:
    """Requests of which nothing is known, and their lengths, which their words tell."""
    rng = np.random.default_rng(seed)
    kind = rng.random(requests) < 0.4
    prompts = [
        [7 + int(long)] * 5 + rng.integers(100, 4_000, rng.integers(3, 60)).tolist()
        for long in kind
    ]
    truth = np.where(kind, rng.integers(80, 160, requests), rng.integers(2, 12, requests))
    prepared = prepare(requests_from_lists(prompts, max_tokens=[400] * requests), TARGET)
    return prepared, truth.astype(np.int32)


def reviser_of(prepared: Prepared) -> Reviser:
    caps = prepared.requests.max_tokens
    unsure = Unsure(lambda: prepared.features, prepared.lengths, caps)
    return Reviser(prepared.expected, unsure, TARGET.limits)


def run(prepared: Prepared, truth: np.ndarray, reviser: Reviser | None) -> SimulatedRun:
    policy = make_policy("blend", prepared.expected, TARGET.limits)
    workload = replace(prepared.workload, output_tokens=truth)
    return simulate_run(
        workload, policy, TARGET.limits, TARGET.table, revise=reviser, revise_every=8
    )


def test_a_run_learns_how_long_its_requests_are() -> None:
    prepared, truth = two_kinds()
    reviser = reviser_of(prepared)
    done = run(prepared, truth, reviser)
    assert sorted(done.admission.tolist()) == list(range(len(truth)))
    revisions = reviser.revisions
    assert 2 <= len(revisions) <= MOST_REVISIONS
    # Nothing was known of them: the prior is far off, what is learned is much nearer.
    before = reviser.expected_output_tokens - truth.sum()
    after = revisions[-1].output_tokens - truth.sum()
    assert before > truth.sum()
    assert abs(after) < before / 4
    assert [revision.finished for revision in revisions] == sorted(
        revision.finished for revision in revisions
    )


def test_the_same_run_teaches_the_same() -> None:
    prepared, truth = two_kinds()
    one, two = reviser_of(prepared), reviser_of(prepared)
    first, second = run(prepared, truth, one), run(prepared, truth, two)
    assert one.revisions == two.revisions
    assert first.admission.tolist() == second.admission.tolist()
    assert first.finish_s.tolist() == second.finish_s.tolist()


def test_nothing_is_learned_from_few() -> None:
    prepared, truth = two_kinds(requests=25)
    reviser = reviser_of(prepared)
    done = run(prepared, truth, reviser)
    assert reviser.revisions == []
    assert done.finish_s.tolist() == run(prepared, truth, None).finish_s.tolist()


def test_known_lengths_and_orders_that_look_at_none_are_left_alone() -> None:
    prepared, truth = two_kinds()
    for policy in ("fcfs", "dfs", "random", "blendserve"):
        assert run_policy(prepared, TARGET, policy, effort=0).replan is None
    assert run_policy(prepared, TARGET, "blend", effort=0, replan=False).replan is None
    told = run_policy(prepared, TARGET, "blend", effort=0).replan
    assert told is not None and len(told["revisions"]) >= 2
    known = replace(prepared.requests, output_tokens=truth)
    assert run_policy(prepare(known, TARGET), TARGET, "blend", effort=0).replan is None


def test_a_policy_that_cannot_be_revised_ends_the_asking() -> None:
    prepared, truth = two_kinds()
    asked = 0

    class Counting(Reviser):
        def __call__(self, policy: Policy, progress: Progress) -> Policy | None:
            nonlocal asked
            asked += 1
            return super().__call__(policy, progress)

    reviser = reviser_of(prepared)
    reviser.__class__ = Counting
    policy = make_policy("dfs", prepared.expected, TARGET.limits)
    workload = replace(prepared.workload, output_tokens=truth)
    simulate_run(workload, policy, TARGET.limits, TARGET.table, revise=reviser, revise_every=8)
    assert asked == 1
    assert reviser.revisions == []


def test_a_request_that_failed_teaches_nothing() -> None:
    prepared, _ = two_kinds()
    n = len(prepared.requests)
    everything = np.ones(n, dtype=np.bool_)
    failed = Progress(np.empty(0, np.int64), everything, everything, np.zeros(n, np.int32))
    reviser = reviser_of(prepared)
    assert reviser.learn(failed) is None
    ended = replace(failed, generated=np.full(n, 9, np.int32))
    learned = reviser.learn(ended)
    assert learned is not None
    assert (learned.outcomes == 9.0).all()


def test_progress_is_looked_at_some_hundred_times_in_a_run() -> None:
    assert steps_between_looks(100_000) == 390
    assert steps_between_looks(0) == steps_between_looks(200) == 4


@st.composite
def some_progress(draw: st.DrawFn) -> Progress:
    """Of 120 requests, in any state."""
    seed = draw(st.integers(0, 2**32 - 1))
    share = draw(st.floats(0.0, 1.0))
    rng = np.random.default_rng(seed)
    admitted = rng.random(120) < share
    finished = admitted & (rng.random(120) < 0.6)
    running = np.flatnonzero(admitted & ~finished)[:32]
    generated = np.where(admitted, rng.integers(1, 300, 120), 0).astype(np.int32)
    return Progress(running, admitted, finished, generated)


PREPARED, _ = two_kinds(requests=120, seed=4)
# Arranging anew takes as long as hundreds of steps do.
MOST_TIMES = 30


@given(progress=some_progress(), factor=st.floats(0.2, 5.0), boundary=st.sampled_from([0.3, 1, 3]))
@settings(max_examples=60)
def test_what_waits_is_arranged_among_all_that_has_not_ended(
    progress: Progress, factor: float, boundary: float
) -> None:
    options = {"boundary": float(boundary)}
    policy = make_policy("blend", PREPARED.expected, TARGET.limits, parameters=options)
    assert policy.revise is not None
    rng = np.random.default_rng(int(factor * 1e6))
    scale = factor * rng.uniform(0.5, 2.0, (120, 1))
    known = PREPARED.expected.with_outcomes(np.maximum(1.0, PREPARED.expected.outcomes * scale))
    revised = policy.revise(policy, known, progress, TARGET.limits)
    waiting = np.flatnonzero(~progress.admitted)
    if not len(waiting):
        return
    queues = (revised.state.compute_order, revised.state.memory_order)
    assert sorted(np.concatenate(queues).tolist()) == waiting.tolist()
    # Of a policy that has not begun, nothing has run: all requests have all of their length left.
    unfinished = np.flatnonzero(~progress.finished)
    expected = arrange(
        known.take(unfinished), TARGET.limits, BlendOptions(boundary=float(boundary))
    )
    for queue, order in zip(queues, expected, strict=True):
        everybody = unfinished[order]
        assert queue.tolist() == everybody[~progress.admitted[everybody]].tolist()
    assert (revised.side[queues[1]] == MEMORY).all()
    assert (revised.side[queues[0]] != MEMORY).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    every=st.integers(2, 60),
    kv_tokens=st.integers(900, 6_000),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_a_run_that_is_often_revised_finishes_everything_once(
    seed: int, every: int, kv_tokens: int
) -> None:
    rng = np.random.default_rng(seed)
    limits = replace(TARGET.limits, kv_tokens=kv_tokens)
    truth = rng.integers(1, 400, 120).astype(np.int32)
    room = limits.kv_blocks * limits.block_size - PREPARED.workload.prompt_tokens + 1
    truth = np.minimum(truth, room)
    times = 0

    def again(policy: Policy, progress: Progress) -> Policy | None:
        nonlocal times
        times += 1
        if times > MOST_TIMES:
            return None
        assert policy.revise is not None
        guess = np.maximum(1.0, truth[:, None] * rng.lognormal(0.0, 1.0, (120, 10)))
        known = PREPARED.expected.with_outcomes(np.sort(guess, axis=1))
        return policy.revise(policy, known, progress, limits)

    done = simulate_run(
        replace(PREPARED.workload, output_tokens=truth),
        make_policy("blend", PREPARED.expected, limits),
        limits,
        TARGET.table,
        revise=again,
        revise_every=every,
    )
    assert sorted(done.admission.tolist()) == list(range(120))
    assert (done.finish_s > done.start_s).all()
    assert done.output_tokens == truth.sum()


def test_lengths_stay_within_caps_and_memory() -> None:
    prepared, truth = two_kinds()
    n = len(truth)
    caps = np.full(n, 400, dtype=np.int32)
    caps[::3] = 20
    unsure = Unsure(lambda: prepared.features, prepared.lengths, caps)
    reviser = Reviser(prepared.expected, unsure, replace(TARGET.limits, kv_tokens=160))
    finished = np.arange(n) < n // 2
    progress = Progress(np.empty(0, np.int64), finished, finished, np.where(finished, truth, 0))
    learned = reviser.learn(progress)
    assert learned is not None
    later = learned.outcomes[n // 2 :]
    assert (later[caps[n // 2 :] == 20] <= 20.0).all()
    assert (later + prepared.requests.prompt_tokens[n // 2 :, None] <= 161.0).all()
