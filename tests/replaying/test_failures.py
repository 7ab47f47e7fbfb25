"""Engines that die and requests that fail: every request still gets its one line."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineDiedError, Launch, Session
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planfile.rows import work_of
from blendplan.replaying.asked import asked
from blendplan.replaying.journal import Order
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally
from tests.replaying import replay_faults
from tests.replaying.replay_faults import TOY, TOY_ROW, FaultyEngine, faulty, toy_process
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

START = "blendplan.engines.simulated_kind.simulated_engine"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A small plan."""
    folder = tmp_path_factory.mktemp("job")
    return small_plan(write_requests_file(folder / "requests.jsonl"), policy="blend")


def errors_of(output: Path) -> dict[str, str]:
    """Error code by request id."""
    lines = lines_of(output)
    return {line["custom_id"]: line["error"]["code"] for line in lines if line["error"]}


def ids(made: Plan, rows: set[int]) -> set[str]:
    return {made.table.column("request_id")[row].as_py() for row in rows}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lifetimes=st.lists(st.integers(0, 30), max_size=6),
    poison=st.sets(st.integers(0, 39), max_size=2),
    retries=st.integers(0, 3),
    in_order=st.booleans(),
)
@example(lifetimes=[], poison={0, 4}, retries=2, in_order=False)
def test_no_death_loses_or_repeats_a_request(
    made: Plan,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    lifetimes: list[int],
    poison: set[int],
    retries: int,
    in_order: bool,
) -> None:
    left = iter(lifetimes)

    def start(plan: Plan, session: Session, **_: bool) -> FaultyEngine:
        return faulty(plan, session, poison=frozenset(poison), turns=next(left, None))

    monkeypatch.setattr(START, start)
    output = tmp_path_factory.mktemp("run") / "results.jsonl"
    replayed = replay(made, output=output, retries=retries, order="input" if in_order else "finish")
    assert_each_once(made, output, in_order=in_order)
    assert replayed.tally.left == 0
    failed = set(errors_of(output))
    assert ids(made, poison) <= failed
    assert set(errors_of(output).values()) <= {"engine_died"}
    if not poison and len(lifetimes) <= retries:
        assert not failed
    if retries >= max(1, len(poison)) and not lifetimes:
        # A request that kills engines takes no other with it, unless there are more of them than
        # attempts: who is in flight at each death cannot be told from who causes it.
        assert failed == ids(made, poison)


def test_a_refused_request_is_tried_again(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = {3: 2, 8: 3, 20: 1}
    monkeypatch.setattr(START, lambda plan, session, **_: faulty(plan, session, refusals=refusals))
    output = tmp_path / "results.jsonl"
    replayed = replay(made, output=output, retries=2)
    assert_each_once(made, output)
    [refused] = [line for line in lines_of(output) if line["error"]]
    assert refused["custom_id"] in ids(made, {8})
    assert refused["response"]["status_code"] == 503
    assert refused["error"] == {"error": "not today"}
    assert replayed.tally.restarts == 0


def test_a_killed_engine_process_is_started_again(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[EngineProcess] = []
    killed: list[int] = []

    def start(plan: Plan | None, launch: Launch, session: Session) -> EngineProcess:
        processes.append(toy_process(plan, launch, session, step_s=0.05))
        return processes[-1]

    def kill_at_a_third(tally: Tally) -> None:
        if tally.finished >= 13 and not killed:
            killed.append(processes[0].pid)
            os.kill(processes[0].pid, signal.SIGKILL)

    monkeypatch.setitem(ENGINES._rows, "toy", TOY_ROW["toy"])
    monkeypatch.setattr(replay_faults, "TOY", replace(TOY, start=start))
    output = tmp_path / "results.jsonl"
    replayed = replay(made, "toy", output=output, progress=kill_at_a_third)
    assert replayed.tally.restarts == 1
    assert len(processes) == 2
    processes[0].log.unlink()  # kept, as it may say why
    assert_each_once(made, output)
    assert errors_of(output) == {}


def test_a_request_that_kills_engine_processes_fails_alone(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = partial(toy_process, poison=frozenset({5}))
    monkeypatch.setitem(ENGINES._rows, "toy", TOY_ROW["toy"])
    monkeypatch.setattr(replay_faults, "TOY", replace(TOY, start=start))
    output = tmp_path / "results.jsonl"
    replayed = replay(made, "toy", output=output, retries=1)
    assert errors_of(output) == dict.fromkeys(ids(made, {5}), "engine_died")
    error = next(line["error"] for line in lines_of(output) if line["error"])
    assert "the engine was killed by SIGKILL" in error["message"]
    assert replayed.tally.restarts == 2


def test_an_engine_that_never_works_is_given_up(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(START, lambda plan, session, **_: faulty(plan, session, turns=1))
    with pytest.raises(BlendplanError, match="died 8 times in a row"):
        replay(made, output=tmp_path / "results.jsonl", retries=100)


@pytest.mark.parametrize("in_order", [True, False])
def test_failed_requests_get_another_chance_on_resume(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    output = tmp_path / "results.jsonl"
    order: Order = "input" if in_order else "finish"

    def stop_at_half(tally: Tally) -> None:
        if tally.finished >= 20:
            raise KeyboardInterrupt

    poison = frozenset(range(0, 40, 7))
    monkeypatch.setattr(START, lambda plan, session, **_: faulty(plan, session, poison=poison))
    with pytest.raises(KeyboardInterrupt):
        replay(made, output=output, order=order, retries=1, progress=stop_at_half)
    monkeypatch.undo()
    replayed = replay(made, output=output, order=order, resume=True)
    assert replayed.tally.already_done >= 20
    assert_each_once(made, output, in_order=in_order)
    assert errors_of(output) == {}


def test_a_second_interrupt_stops_at_once(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    told: list[str] = []

    def interrupt(tally: Tally) -> None:
        if tally.finished >= 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        replay(made, output=output, progress=interrupt, remark=told.append)
    assert len(told) == 1
    assert "can be continued" in told[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    replayed = replay(made, output=output, resume=True)
    assert replayed.tally.already_done >= 5
    assert_each_once(made, output)


def test_an_interrupt_lets_running_requests_finish(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    asked_at: list[int] = []

    def interrupt(tally: Tally) -> None:
        if tally.finished >= 5 and not asked_at:
            asked_at.append(tally.finished)
            signal.raise_signal(signal.SIGINT)

    replayed = replay(made, output=output, progress=interrupt)
    assert replayed.interrupted
    assert asked_at[0] < replayed.tally.finished < len(made)
    assert not output.exists()
    again = replay(made, output=output, resume=True)
    assert again.tally.already_done == replayed.tally.finished
    assert_each_once(made, output)


@pytest.mark.parametrize("order", ["input", "finish"])
def test_a_refused_run_touches_nothing(made: Plan, tmp_path: Path, order: Order) -> None:
    output = tmp_path / "results.jsonl"

    def interrupt(tally: Tally) -> None:
        if tally.finished >= 5:
            signal.raise_signal(signal.SIGINT)

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(KeyboardInterrupt):
        replay(made, output=output, order=order, progress=interrupt)
    unfinished = files()
    other = small_plan(write_requests_file(tmp_path.parent / "other.jsonl", 20, seed=3))
    for plan, resume in ((made, False), (other, False), (other, True)):
        with pytest.raises(BlendplanError, match=r"results\.jsonl\.journal"):
            replay(plan, output=output, order=order, resume=resume)
        assert files() == unfinished
    replay(made, output=output, order=order, resume=True)
    finished = files()
    for plan, resume in ((made, False), (other, False), (other, True)):
        with pytest.raises(BlendplanError, match=r"results\.jsonl"):
            replay(plan, output=output, order=order, resume=resume)
        assert files() == finished


def test_what_an_engine_printed_first_explains_its_death(made: Plan) -> None:
    left = np.arange(len(made))
    session = Session(left, left, np.zeros(len(made), dtype=np.int32))
    process = toy_process(made, Launch("m", made.limits), session, poison=frozenset(left.tolist()))
    with process.log.open("a") as log:
        log.write("Traceback (most recent call last):\nmodule.OddError: no room\nbye\n")
    work = work_of(made)
    rows, died = process.serve([]).wanted, r"SIGKILL \(module\.OddError: no room\); its output"
    with pytest.raises(EngineDiedError, match=died):
        while True:
            rows = process.serve([asked(work, row) for row in rows]).wanted
    process.log.unlink()
