"""A replay learns output lengths from its requests and goes over to them."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

import blendplan
from blendplan.engines.protocol import Session
from blendplan.engines.replanning import Generated
from blendplan.engines.simulated import SimulatedEngine
from blendplan.engines.simulated_kind import simulated_engine
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.relearn import Relearner
from blendplan.planfile.plan import Plan
from blendplan.replaying.run import replay
from blendplan.requests.columns import Requests
from tests.replaying.replay_jobs import assert_each_once, lines_of, surprised

START = "blendplan.engines.simulated_kind.simulated_engine"
ENGINE: dict[str, Any] = {
    "gpu": "a100-80g",
    "kv_tokens": 6_000,
    "max_num_seqs": 24,
    "max_num_batched_tokens": 256,
    "effort": 0,
}


def job(requests: int = 200) -> tuple[Requests, list[int]]:
    """Requests of two kinds whose lengths nobody knows, and those lengths."""
    rng = np.random.default_rng(6)
    long = rng.random(requests) < 0.3
    prompts = [
        [7 + int(one)] * 4 + rng.integers(100, 4_000, rng.integers(3, 60)).tolist() for one in long
    ]
    truth = np.where(long, rng.integers(60, 120, requests), rng.integers(2, 12, requests))
    asked = blendplan.requests_from_lists(prompts, max_tokens=[300] * requests)
    return asked, truth.tolist()


@pytest.fixture(scope="module")
def made() -> Plan:
    """A plan that learns."""
    return blendplan.plan(job()[0], **ENGINE)


@pytest.fixture(scope="module")
def wrong() -> Plan:
    """The same plan of requests that turn out to be far shorter."""
    asked, truth = job()
    return surprised(blendplan.plan(asked, **ENGINE), truth)


def test_the_simulated_engine_learns_at_the_planned_steps(made: Plan) -> None:
    planned = made.metadata["replan"]
    assert len(planned["revisions"]) >= 2
    assert planned["every_steps"] >= 4
    done = replay(made)
    predicted = made.metadata["predicted"]
    told = planned | {"every_steps": None}
    assert done.replan is not None
    assert done.replan | {"every_steps": None} == told
    assert done.tally.steps == predicted["steps"]
    assert done.tally.elapsed_s == predicted["makespan_s"]
    run = blendplan.simulate(made)
    assert run.steps == predicted["steps"]
    assert run.finish_s.tolist() == made.column("finish_s").tolist()


def test_parts_learn_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    blendplan.plan(job(300)[0], replicas=2, **ENGINE).write(path)
    whole = Plan.read(path)
    whole.verify()
    for replica in range(2):
        part = whole.part(replica)
        assert len(part.metadata["replan"]["revisions"]) >= 2
        assert replay(part).tally.elapsed_s == part.metadata["predicted"]["makespan_s"]


def test_no_replan_is_a_plan_that_learns_nothing(made: Plan) -> None:
    plain = blendplan.plan(job()[0], replan=False, **ENGINE)
    assert plain.metadata["replan"] is None
    assert made.metadata["policy_parameters"] == plain.metadata["policy_parameters"]
    done = replay(plain)
    assert done.replan is None
    assert done.tally.elapsed_s == plain.metadata["predicted"]["makespan_s"]
    # The same policy until the first revision, from a plan that would learn.
    assert replay(made, replan=False).tally.elapsed_s == done.tally.elapsed_s
    assert replay(made, replan=False).replan is None
    assert made.metadata["predicted"]["makespan_s"] != done.tally.elapsed_s


def test_it_learns_what_really_happens(wrong: Plan) -> None:
    total = sum(job()[1])
    learned = replay(wrong).replan
    assert learned is not None
    assert learned["expected_output_tokens"] > 2.5 * total
    assert learned["revisions"][-1]["output_tokens"] == pytest.approx(total, rel=0.3)


def test_a_killed_run_goes_on_with_what_it_has_learned(wrong: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"

    def kill(tally: Any) -> None:
        if tally.finished >= 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(wrong, output=output, progress=kill)
    done = replay(wrong, output=output, resume=True)
    assert done.tally.already_done >= 80
    assert_each_once(wrong, output)
    assert done.replan is not None
    first = done.replan["revisions"][0]
    # Known from the answers of the first session, before anything else has ended.
    assert first["finished"] >= 80
    assert first["work"] < 0.2
    assert first["output_tokens"] < 0.8 * done.replan["expected_output_tokens"]


def test_answers_that_are_taken_over_teach_too(wrong: Plan, tmp_path: Path) -> None:
    whole, some, output = (tmp_path / name for name in ("whole", "some", "results"))
    replay(wrong, output=whole, replan=False)
    some.write_text("".join(whole.read_text().splitlines(keepends=True)[:90]))
    done = replay(wrong, output=output, already=some)
    assert done.tally.already_done == 90
    assert done.replan is not None
    assert done.replan["revisions"][0]["finished"] >= 90
    assert len(lines_of(output)) == 200


def test_an_error_in_learning_costs_no_answer(
    wrong: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> Lengths:
        raise RuntimeError("no forest here")

    monkeypatch.setattr(Relearner, "lengths", fail)
    output = tmp_path / "results.jsonl"
    remarks: list[str] = []
    done = replay(wrong, output=output, remark=remarks.append)
    assert_each_once(wrong, output)
    assert done.tally.finished == 200
    assert len([line for line in remarks if "no forest here" in line]) == 1
    assert done.replan is not None and done.replan["revisions"] == []


def in_real_time(plan: Plan, session: Session, stepped: Callable[[], None]) -> SimulatedEngine:
    """The simulated engine as one that does not wait while something is learned.

    Args:
        plan, session: as of `simulated_engine`.
        stepped: called before each step.
    """
    engine = simulated_engine(plan, session)
    admission = engine._admission
    begin = admission.begin_step

    def begin_step(used: float, generated: Generated, *, waits: bool) -> int:
        stepped()
        return begin(used, generated, waits=False)

    admission.begin_step = begin_step  # type: ignore[method-assign,assignment]
    return engine


def test_an_engine_in_real_time_does_not_wait(
    wrong: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning, enough, learned = Event(), Event(), Event()
    steps_meanwhile = 0
    lengths = Relearner.lengths

    def slow(self: Relearner, *arguments: Any) -> Lengths | None:
        learning.set()
        assert enough.wait(60)
        found = lengths(self, *arguments)
        if found is not None:
            learned.set()
        return found

    def stepped() -> None:
        nonlocal steps_meanwhile
        if learning.is_set() and not enough.is_set():
            steps_meanwhile += 1
            if steps_meanwhile == 40:
                enough.set()
        elif enough.is_set() and not learned.is_set():
            # The engine takes its time now, so that the run does not end first.
            time.sleep(0.05)

    def start(plan: Plan, session: Session, **_: bool) -> SimulatedEngine:
        return in_real_time(plan, session, stepped)

    monkeypatch.setattr(Relearner, "lengths", slow)
    monkeypatch.setattr(START, start)
    output = tmp_path / "results.jsonl"
    remarks: list[str] = []
    done = replay(wrong, output=output, remark=remarks.append)
    assert_each_once(wrong, output)
    assert steps_meanwhile == 40
    assert done.replan is not None
    assert done.replan["revisions"]
    assert not [line for line in remarks if "cannot learn" in line]


def test_an_error_in_the_thread_is_one_line(
    wrong: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> Lengths:
        raise RuntimeError("no forest here")

    def start(plan: Plan, session: Session, **_: bool) -> SimulatedEngine:
        return in_real_time(plan, session, lambda: time.sleep(0.001))

    monkeypatch.setattr(Relearner, "lengths", fail)
    monkeypatch.setattr(START, start)
    output = tmp_path / "results.jsonl"
    remarks: list[str] = []
    replay(wrong, output=output, remark=remarks.append)
    assert_each_once(wrong, output)
    assert len([line for line in remarks if "no forest here" in line]) == 1
