"""A plan's policy inside a scheduler: whatever comes, or does not, everything there runs once."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.engines import asking
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.protocol import Ended, Move, Report, Session
from blendplan.planfile.plan import Plan
from blendplan.policy.registry import POLICIES
from blendplan.requests.in_memory import requests_from_lists
from tests.replaying.replay_jobs import small_plan

ROWS = 24
ROOT = Path(__file__).parents[2]


def plan_of(policy: str, seed: int = 0) -> Plan:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, 60, rng.integers(2, 30)).tolist() for _ in range(ROWS)]
    outputs = rng.integers(1, 30, ROWS).tolist()
    requests = requests_from_lists(prompts, output_tokens=outputs)
    return small_plan(requests, policy=policy)


class Scheduler:
    """A scheduler of four seats, each sequence in one for two steps.

    Args:
        admission: asked.
    """

    def __init__(self, admission: PlannedAdmission) -> None:
        self.admission = admission
        self.seats: dict[int, int] = {}
        self.began: list[int] = []
        self.together: list[set[int]] = []
        self._lengths = np.zeros(len(admission.plan), dtype=np.int32)

    def step(self) -> None:
        self.admission.begin_step(16.0 * len(self.seats), self._lengths.copy, waits=True)
        while len(self.seats) < 4 and (row := self.admission.next_row()) >= 0:
            self.admission.began(row)
            self.began.append(row)
            self.seats[row] = 2
        self.together.append(set(self.seats))
        for row in list(self.seats):
            self.seats[row] -= 1
            if not self.seats[row]:
                del self.seats[row]
                if row < len(self._lengths):
                    self._lengths[row] = 2
                self.admission.ended(Ended(row, 0, 0), 2)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("blendplan.engines.planned.time.monotonic", lambda: self.now)


def session(made: Plan, **options: Any) -> Session:
    rows = np.arange(len(made))
    return Session(rows, rows, np.zeros(len(made), dtype=np.int32), **options)


@pytest.mark.parametrize("policy", POLICIES.names())
def test_what_is_all_there_goes_in_the_policy_s_order(policy: str) -> None:
    made = plan_of(policy)
    expected: list[int] = []
    live = made.live_policy()
    there = Scheduler(PlannedAdmission(made, made.limits, wait_s=0.0))
    for row in np.random.default_rng(1).permutation(ROWS).tolist():
        there.admission.arrived(row)
    there.run(60)
    assert sorted(there.began) == list(range(ROWS))
    # The policy asked by itself, with the same seats.
    running: dict[int, int] = {}
    for _ in range(60):
        if len(expected) == ROWS and not running:
            break
        live.begin_step(16.0 * len(running))
        while len(running) < 4 and (row := live.next_row()) >= 0:
            live.admitted(row)
            expected.append(row)
            running[row] = 2
        for row in list(running):
            running[row] -= 1
            if not running[row]:
                del running[row]
                live.finished([row])
    assert there.began == expected


@settings(max_examples=60)
@given(
    policy=st.sampled_from(POLICIES.names()),
    seed=st.integers(0, 1000),
    never=st.sets(st.integers(0, ROWS - 1), max_size=8),
    strangers=st.integers(0, 4),
)
def test_what_never_comes_holds_nobody_up(
    policy: str, seed: int, never: set[int], strangers: int
) -> None:
    made = plan_of(policy)
    scheduler = Scheduler(PlannedAdmission(made, made.limits, wait_s=0.0))
    rng = np.random.default_rng(seed)
    coming = [row for row in rng.permutation(ROWS).tolist() if row not in never]
    named: list[int] = []
    while coming:
        for _ in range(int(rng.integers(1, 5))):
            if coming:
                scheduler.admission.arrived(coming.pop())
        if len(named) < strangers:
            named.append(scheduler.admission.stranger())
        scheduler.step()
    while len(named) < strangers:
        named.append(scheduler.admission.stranger())
    scheduler.run(40)
    assert sorted(scheduler.began) == sorted({*range(ROWS), *named} - never)
    # What comes after all others still runs.
    for row in never:
        scheduler.admission.arrived(row)
    scheduler.run(40)
    assert sorted(scheduler.began) == sorted({*range(ROWS), *named})


def test_a_request_that_is_late_is_waited_for_a_stated_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    made = plan_of("dfs")
    scheduler = Scheduler(PlannedAdmission(made, made.limits, wait_s=5.0))
    for row in range(1, ROWS):
        scheduler.admission.arrived(row)
    scheduler.run(3)
    clock.now += 4.9
    scheduler.run(3)
    assert scheduler.began == []
    clock.now += 0.2
    scheduler.run(3)
    assert scheduler.began[:4] == [1, 2, 3, 4]
    scheduler.admission.arrived(0)
    scheduler.run(2)
    assert 0 in scheduler.began[-4:]
    scheduler.run(40)
    assert sorted(scheduler.began) == list(range(ROWS))


def test_strangers_go_first() -> None:
    made = plan_of("dfs")
    scheduler = Scheduler(PlannedAdmission(made, made.limits, wait_s=0.0))
    for row in range(ROWS):
        scheduler.admission.arrived(row)
    scheduler.step()
    name = scheduler.admission.stranger()
    assert name == ROWS
    scheduler.run(2)
    assert scheduler.began[4] == name


class Sender:
    """Sends what is asked for, as a replay does; some of it never.

    Args:
        refused: rows that are answered without the scheduler.
    """

    def __init__(self, refused: Sequence[int] = ()) -> None:
        self.asked: list[int] = []
        self.reports: list[Report] = []
        self._refused = refused

    def tell(self, report: Report) -> None:
        self.reports.append(report)
        self.asked.extend(report.wanted)

    def send(self, admission: PlannedAdmission) -> None:
        """Send what was asked for since the last time."""
        while self.asked:
            asked, self.asked = self.asked, []
            for row in asked:
                if row in self._refused:
                    admission.pass_over([row])
                else:
                    for one in admission.rows_of(row):
                        admission.arrived(one)


@pytest.mark.parametrize("policy", POLICIES.names())
@pytest.mark.parametrize("ahead", [2, 100])
def test_a_replay_is_asked_for_everything_once(
    policy: str, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_AHEAD", ahead)
    made = plan_of(policy)
    limits = made.limits.__class__(**{**made.limits.__dict__, "max_num_seqs": 2})
    sender = Sender(refused=[3, 7, 20])
    admission = PlannedAdmission(made, limits, session=session(made), tell=sender.tell)
    scheduler = Scheduler(admission)
    for _ in range(80):
        sender.send(admission)
        scheduler.step()
        admission.flush()
    assert sorted(scheduler.began) == sorted({*range(ROWS)} - {3, 7, 20})
    wanted = [row for report in sender.reports for row in report.wanted]
    assert sorted(wanted) == list(range(ROWS))
    began = [row for report in sender.reports for row in report.began]
    assert sorted(began) == sorted(scheduler.began)


def test_suspects_run_alone_and_what_failed_runs_first() -> None:
    made = plan_of("fcfs")
    sender = Sender()
    admission = PlannedAdmission(
        made, made.limits, session=session(made, first=(5, 9), alone=(12, 20)), tell=sender.tell
    )
    scheduler = Scheduler(admission)
    for _ in range(60):
        sender.send(admission)
        scheduler.step()
        admission.flush()
    assert sorted(scheduler.began) == list(range(ROWS))
    assert scheduler.began[:4] == [12, 20, 5, 9]
    assert all(len(seats) == 1 for seats in scheduler.together if seats & {12, 20})


def test_nothing_begins_after_a_stop() -> None:
    made = plan_of("blend")
    sender = Sender()
    admission = PlannedAdmission(made, made.limits, session=session(made), tell=sender.tell)
    scheduler = Scheduler(admission)
    sender.send(admission)
    scheduler.run(2)
    admission.stop()
    before = list(scheduler.began)
    scheduler.run(5)
    admission.flush()
    assert scheduler.began == before
    assert sender.reports[-1].idle


def test_other_prompts_than_planned_are_remarked_on() -> None:
    made = plan_of("fcfs")
    sender = Sender()
    admission = PlannedAdmission(made, made.limits, session=session(made), tell=sender.tell)
    prompts = made.column("prompt_tokens")
    for row in range(ROWS):
        admission.arrived(row, int(prompts[row]) + (row % 2))
    admission.flush()
    remarks = [line for report in sender.reports for line in report.remarks]
    assert len(remarks) == 1
    assert remarks[0].startswith(f"{ROWS // 2} of the first {ROWS} prompts are not as long")


COMPILING = """\
import sys
from blendplan.kernels.cache import KernelCache
from tests.engines.test_planned import ROWS, PlannedAdmission, Scheduler, plan_of

made = plan_of(sys.argv[1])
there = Scheduler(PlannedAdmission(made, made.limits, wait_s=0.0))
needed = []
load = KernelCache.load_overload
def load_overload(cache, *arguments):
    needed.append(str(cache))
    return load(cache, *arguments)
KernelCache.load_overload = load_overload
for row in range(ROWS):
    there.admission.arrived(row)
there.run(60)
assert len(there.began) == ROWS
assert not needed, needed
"""


@pytest.mark.parametrize("policy", ["dfs", "blendserve", "blend"])
def test_kernels_are_ready_when_a_run_begins(policy: str) -> None:
    """Their compilation, of some seconds, is no part of the time that a run takes."""
    subprocess.run([sys.executable, "-c", COMPILING, policy], check=True, cwd=ROOT)


def test_what_other_threads_say_waits_for_the_end_of_a_step() -> None:
    """A scheduler that has given a request room is still offered it."""
    made = plan_of("fcfs")
    sender = Sender()
    admission = PlannedAdmission(
        made, made.limits, session=session(made, shared=True), tell=sender.tell
    )
    sender.send(admission)
    admission.begin_step(0.0, lambda: np.zeros(ROWS, dtype=np.int32), waits=False)
    with admission.steady():
        head = admission.next_row()
        others = [
            Thread(target=admission.move, args=[Move(give=(ROWS - 1,))]),
            Thread(target=admission.stop),
        ]
        for other in others:
            other.start()
            other.join(0.1)
            assert other.is_alive()
        assert admission.next_row() == head
        admission.began(head)
    for other in others:
        other.join(10)
    assert admission.next_row() == -1
