"""A plan's policy asked live, by an engine with vLLM's real rules of scheduling and caching."""

import random
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.policy.live import LivePolicy
from blendplan.policy.registry import POLICIES
from blendplan.requests.columns import Requests
from tests.oracles.lockstep import requests_of
from tests.oracles.slow_engine import SlowEngine

QUEUES = ("fcfs", "random", "dfs")
ENGINE: dict[str, Any] = {"kv_tokens": 2048, "max_num_seqs": 12, "max_num_batched_tokens": 128}


def job() -> Requests:
    """Short answers with a common prefix, and long generations."""
    chance = random.Random(11)
    stem = [chance.randrange(1000) for _ in range(90)]
    prompts, outputs = [], []
    for row in range(70):
        short = row % 3 > 0
        tail = [chance.randrange(1000) for _ in range(chance.randrange(5, 60))]
        prompts.append(stem + tail if short else tail)
        outputs.append(chance.randrange(1, 8) if short else chance.randrange(50, 400))
    return requests_of(prompts, outputs)


@pytest.fixture(scope="module", params=POLICIES.names())
def made(request: pytest.FixtureRequest) -> Plan:
    """A plan of each policy."""
    return plan(job(), gpu="a100-80g", policy=request.param, **ENGINE)


class Submitted:
    """The waiting queue of a live engine: requests in the order in which they were submitted."""

    def __init__(self, max_num_batched_tokens: int) -> None:
        self.waiting: deque[int] = deque()
        self.max_num_batched_tokens = max_num_batched_tokens

    def begin_step(self, running: int, used_tokens: float) -> int:
        return self.max_num_batched_tokens

    def next_request(self, running: int) -> int:
        return self.waiting[0] if self.waiting else -1

    def admitted(self, request: int) -> None:
        if self.waiting and self.waiting[0] == request:
            self.waiting.popleft()

    def preempted(self, request: int) -> None:
        pass

    def finished(self, request: int) -> None:
        pass


def drive(
    made: Plan,
    outputs: list[int],
    settings: EngineLimits,
    *,
    live_limits: EngineLimits | None = None,
    tells_resumed: bool = True,
) -> tuple[list[tuple[int, int]], SlowEngine]:
    """Run a plan live to its end: (step, row) of each admission, and the engine afterwards."""
    live = made.live_policy(live_limits)
    queue = Submitted(settings.max_num_batched_tokens)
    engine = SlowEngine(
        made.table["prompt_token_ids"].to_pylist(),
        outputs,
        blocks=settings.kv_blocks,
        block_size=settings.block_size,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
        policy=queue,
    )
    admissions: list[tuple[int, int]] = []
    on_engine: set[int] = set()
    preempted: set[int] = set()
    while engine.finished < len(outputs):
        assert len(engine.steps) < 20_000
        decodes = sum(engine.known(r) - engine.computed[r] == 1 for r in engine.running)
        prefill = sum(engine.known(r) - engine.computed[r] for r in engine.running) - decodes
        prefill += sum(engine.known(r) for r in [*queue.waiting, *engine.waiting_again])
        rows = live.admit(
            engine.kv.pool.free() * settings.block_size,
            step_tokens=settings.max_num_batched_tokens - decodes - prefill,
        )
        assert live.running + len(preempted) <= live.limits.max_num_seqs or not tells_resumed
        assert len(rows) or on_engine
        admissions += [(len(engine.steps), int(row)) for row in rows]
        queue.waiting.extend(int(row) for row in rows)
        on_engine.update(int(row) for row in rows)
        before = len(engine.steps)
        engine.step()
        assert len(engine.steps) == before + 1
        step = engine.steps[-1]
        resumed = preempted & {request for request, _ in step.admitted}
        preempted = (preempted - resumed) | set(step.preempted)
        done = {r for r in on_engine if engine.generated[r] == outputs[r]}
        on_engine -= done
        live.preempted(step.preempted)
        if tells_resumed:
            live.resumed(resumed)
        live.finished(sorted(done))
        if tells_resumed:
            assert live.running == len(on_engine) - len(preempted)
    assert live.done and live.running == 0
    assert len(live.admit(10**6)) == 0
    return admissions, engine


class KeepsToBudget(Submitted):
    """A live engine that computes no more prompt tokens in a step than the policy allows."""

    live: LivePolicy

    def begin_step(self, running: int, used_tokens: float) -> int:
        return self.live.prefill_tokens


def drive_within_budget(made: Plan) -> tuple[list[int], SlowEngine]:
    """Run a plan live, with true predictions, and keep to its prefill budgets."""
    limits = made.limits
    live = made.live_policy()
    queue = KeepsToBudget(limits.max_num_batched_tokens)
    queue.live = live
    engine = SlowEngine(
        made.table["prompt_token_ids"].to_pylist(),
        planned_outputs(made),
        blocks=limits.kv_blocks,
        block_size=limits.block_size,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_num_seqs=limits.max_num_seqs,
        policy=queue,
    )
    while engine.finished < len(made):
        left = [engine.known(row) - engine.computed[row] for row in engine.running]
        decodes = sum(
            tokens == 1 and engine.generated[row] > 0
            for row, tokens in zip(engine.running, left, strict=True)
        )
        rows = live.admit(
            engine.kv.pool.free() * limits.block_size,
            step_tokens=limits.max_num_batched_tokens - decodes,
            backlog_tokens=sum(left) - decodes,
        )
        queue.waiting.extend(int(row) for row in rows)
        running = [*engine.running, *queue.waiting]
        engine.step()
        assert not queue.waiting
        live.finished(row for row in running if row not in engine.running)
    admitted = {row: at for at, step in enumerate(engine.steps) for row, _ in step.admitted}
    return [admitted[row] for row in range(len(made))], engine


def planned_outputs(made: Plan) -> list[int]:
    return [int(mean) for mean in made.table["output_tokens_mean"].to_pylist()]


def test_known_lengths(made: Plan) -> None:
    admissions, _ = drive(made, planned_outputs(made), made.limits)
    assert sorted(row for _, row in admissions) == list(range(len(made)))


@pytest.mark.parametrize("made", QUEUES, indirect=True)
def test_queue_admits_in_plan_order(made: Plan) -> None:
    admissions, _ = drive(made, planned_outputs(made), made.limits)
    assert [row for _, row in admissions] == list(range(len(made)))


def test_queue_with_ample_memory_admits_as_simulated() -> None:
    requests = job()
    ample = ENGINE | {"kv_tokens": 100_000, "max_num_batched_tokens": 64}
    for policy in QUEUES:
        made = plan(requests, gpu="a100-80g", policy=policy, **ample)
        admissions, engine = drive(made, planned_outputs(made), made.limits)
        # What is submitted before a step is admitted in it, unless the step has no tokens left.
        steps = {r: at for at, step in enumerate(engine.steps) for r, _ in step.admitted}
        assert [steps[row] for row in range(len(made))] == made.table["batch"].to_pylist()
        assert [row for _, row in admissions] == list(range(len(made)))
        assert len(engine.steps) == made.metadata["predicted"]["steps"]
        assert made.metadata["predicted"]["preemptions"] == 0


@pytest.mark.parametrize("kv_tokens", [2560, 30_000])
@pytest.mark.parametrize("policy", POLICIES.names())
def test_engine_that_keeps_to_the_budget_takes_the_planned_steps(
    policy: str, kv_tokens: int
) -> None:
    made = plan(job(), gpu="a100-80g", policy=policy, **ENGINE | {"kv_tokens": kv_tokens})
    # Who is preempted when would be the engine's choice.
    assert made.metadata["predicted"]["preemptions"] == 0
    steps, engine = drive_within_budget(made)
    assert steps == made.table["batch"].to_pylist()
    assert len(engine.steps) == made.metadata["predicted"]["steps"]
    assert list(engine.cached_tokens) == list(range(len(made)))
    cached = [engine.cached_tokens[row] for row in range(len(made))]
    assert cached == made.table["cached_tokens"].to_pylist()


def test_scanners_take_the_sorted_order_from_both_ends() -> None:
    made = plan(job(), gpu="a100-80g", policy="blendserve", **ENGINE)
    sides = made.sides()
    planned = [*np.flatnonzero(sides == 0).tolist(), *np.flatnonzero(sides == 1)[::-1].tolist()]
    admissions, _ = drive(made, planned_outputs(made), made.limits)
    # Wherever they meet: what came from the left and from the right makes up the sorted order.
    place = {row: at for at, row in enumerate(planned)}
    left, right = 0, len(planned) - 1
    for _, row in admissions:
        assert place[row] in (left, right)
        if place[row] == left:
            left += 1
        else:
            right -= 1
    assert left == right + 1


@pytest.mark.parametrize("seed", [1, 2])
def test_wrong_predictions_still_finish(made: Plan, seed: int) -> None:
    chance = random.Random(seed)
    actual = [
        min(900, max(1, round(length * chance.lognormvariate(0.0, 1.0))))
        for length in planned_outputs(made)
    ]
    admissions, engine = drive(made, actual, made.limits)
    assert sorted(row for _, row in admissions) == list(range(len(made)))
    assert engine.generated == actual


def test_engine_that_does_not_tell_when_it_resumes(made: Plan) -> None:
    actual = [min(900, 3 * length) for length in planned_outputs(made)]
    _, engine = drive(made, actual, made.limits, tells_resumed=False)
    assert engine.generated == actual
    assert sum(len(step.preempted) for step in engine.steps) > 0


@pytest.mark.parametrize("kv_tokens", [1024, 16_384])
def test_engine_of_another_capacity(made: Plan, kv_tokens: int) -> None:
    other = replace(made.limits, kv_tokens=kv_tokens, max_num_seqs=5)
    admissions, engine = drive(made, planned_outputs(made), other, live_limits=other)
    assert sorted(row for _, row in admissions) == list(range(len(made)))
    assert max(len(step.running) for step in engine.steps) <= 5


def test_partition_follows_the_capacity() -> None:
    made = plan(job(), gpu="a100-80g", policy="blendserve", **ENGINE)
    for kv_tokens in (2048, 4096):
        live = made.live_policy(replace(made.limits, kv_tokens=kv_tokens))
        live.admit(kv_tokens)
        left, right = live.shares()
        assert abs(left + right - kv_tokens) <= 1
        assert left > 0 and right > 0


def test_policy_starts_afresh_each_time(made: Plan) -> None:
    first = drive(made, planned_outputs(made), made.limits)[0]
    assert drive(made, planned_outputs(made), made.limits)[0] == first


def test_plan_read_from_a_file_admits_the_same(made: Plan, tmp_path: Path) -> None:
    made.write(tmp_path / "plan.arrow")
    found = Plan.read(tmp_path / "plan.arrow")
    outputs = planned_outputs(made)
    assert drive(found, outputs, made.limits)[0] == drive(made, outputs, made.limits)[0]


def test_limits_of_one_call(made: Plan) -> None:
    live = made.live_policy()
    none_left = live.admit(0, step_tokens=0)
    assert len(none_left) == 0
    first = live.admit(0)
    # An idle engine gets something whatever it says of its memory.
    assert len(first) == 1 and live.running == 1
    assert len(live.admit(0)) == 0
    assert first.dtype == np.int64
    first[0] = -1
    assert -1 not in live.admit(2048).tolist()


def test_impossible_reports_are_refused(made: Plan) -> None:
    live = made.live_policy()
    rows = live.admit(2048).tolist()
    waiting = next(row for row in range(len(made)) if row not in rows)

    def refusal(event: str, row: int) -> str:
        with pytest.raises(BlendplanError) as refused:
            getattr(live, event)([row])
        assert "\n" not in str(refused.value)
        return str(refused.value)

    for event in ("finished", "preempted", "resumed"):
        assert "rows 0 to 69" in refusal(event, len(made))
        assert "rows 0 to 69" in refusal(event, -1)
        assert f"row {waiting} is reported {event}, but it is waiting" in refusal(event, waiting)
    assert "but it is running" in refusal("resumed", rows[0])
    live.preempted(rows[:1])
    live.preempted(rows[:1])
    assert live.running == len(rows) - 1
    live.resumed(rows[:1])
    live.finished(rows[:1])
    for event in ("finished", "preempted", "resumed"):
        assert "but it is done" in refusal(event, rows[0])
    assert live.running == len(rows) - 1


def test_name_and_settings(made: Plan) -> None:
    live = made.live_policy()
    assert isinstance(live, LivePolicy)
    assert live.name == made.metadata["policy"]
    assert live.limits == made.limits == EngineLimits(2048, 12, 128, 16)
    assert not live.done
