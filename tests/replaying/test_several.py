"""Several engines share a plan: everything runs once, wherever requests go and whoever dies."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import blendplan
from blendplan.engines.launch import launch_of
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineDiedError, Move, Session
from blendplan.engines.simulated import SimulatedEngine
from blendplan.planfile.plan import Plan
from blendplan.planfile.shared import shared_plans
from blendplan.policy.registry import POLICIES
from tests.replaying.replay_faults import FaultyEngine, toy_process
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file
from tests.replaying.several import LateFleet, StrictEngine, replay_several, simulated_start


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan for two replicas, of requests with several answers."""
    job = write_requests_file(tmp_path_factory.mktemp("job") / "requests.jsonl", 120, answers=3)
    return small_plan(job, policy="blend", replicas=2)


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_any_number_of_replicas_gives_the_same_answers(
    made: Plan, tmp_path: Path, replicas: int
) -> None:
    output = tmp_path / "results.jsonl"
    done = replay_several(made, replicas, output)
    assert done.tally.finished == made.metadata["requests"]
    assert_each_once(made, output)
    if replicas > 1:
        assert sum(one["finished"] for one in done.replicas) == made.metadata["requests"]
        assert all(one["finished"] for one in done.replicas)


def test_the_same_run_twice_is_the_same(made: Plan) -> None:
    first, second = (replay_several(made, 3) for _ in range(2))
    assert first.tally == second.tally
    assert first.replicas == second.replicas


@pytest.mark.parametrize("seed", range(24))
def test_late_reports_and_deaths_lose_and_repeat_nothing(
    made: Plan, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    output = tmp_path / "results.jsonl"
    replicas, deaths = int(rng.integers(2, 6)), int(rng.integers(0, 6))
    start = simulated_start(made)
    done = replay_several(
        made,
        replicas,
        output,
        at_first=int(rng.integers(1, replicas + 1)),
        start=lambda replica, session: StrictEngine(start(replica, session)),
        fleet=lambda start: LateFleet(start, rng, deaths),
        retries=10,
    )
    assert_each_once(made, output)
    assert done.tally.finished == made.metadata["requests"]
    assert not [line for line in lines_of(output) if line["error"]]


@pytest.fixture
def toy(made: Plan) -> Iterator[Callable[[int, Session], EngineProcess]]:
    """Starts engine processes of the plan."""
    plans, started = shared_plans(made), list[EngineProcess]()
    launch = launch_of(made, "m", {}, pdmux=False, log_steps=False, output=None)

    def start(replica: int, session: Session) -> EngineProcess:
        started.append(toy_process(plans[replica], launch, session))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


def test_engine_processes_are_sent_nothing_twice(
    made: Plan, toy: Callable[[int, Session], EngineProcess], tmp_path: Path
) -> None:
    rng, output = np.random.default_rng(5), tmp_path / "results.jsonl"
    done = replay_several(
        made,
        2,
        output,
        start=lambda replica, session: StrictEngine(toy(replica, session)),
        fleet=lambda start: LateFleet(start, rng),
    )
    assert_each_once(made, output)
    assert done.tally.failed == done.tally.restarts == 0
    assert sum(one["moved_in"] for one in done.replicas) > 0


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_a_scheduler_wanted_before_it_heard_of_a_move_is_void(
    made: Plan, toy: Callable[[int, Session], EngineProcess], comes_back: bool
) -> None:
    firsts = np.flatnonzero(made.column("answer") == 0)
    ended = np.zeros(len(made), dtype=np.int32)
    engine = toy(0, Session(np.arange(len(made)), firsts, ended, shared=True))
    assert engine._line is not None
    assert engine._line.poll(10)  # its first wishes are on their way
    everything = tuple(firsts.tolist())
    engine.move(Move(give=everything))
    if comes_back:
        engine.move(Move(take=everything[:2]))
    wanted = [row for _ in range(3) for row in engine.serve([]).wanted]
    assert sorted(wanted) == (list(everything[:2]) if comes_back else [])


@pytest.mark.parametrize("policy", POLICIES.names())
@pytest.mark.parametrize("known", [True, False])
def test_every_policy_goes_on_with_requests_that_come_and_go(policy: str, known: bool) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 60, 90)
    asked = blendplan.requests_from_lists(
        [[int(one % 3), *rng.integers(3, 4000, rng.integers(3, 60)).tolist()] for one in lengths],
        output_tokens=lengths if known else None,
        max_tokens=np.full(90, 60),
        answers=rng.integers(1, 4, 90),
    )
    made = small_plan(asked, policy=policy, replicas=2, effort=0)
    done = replay_several(
        made, 4, fleet=lambda start: LateFleet(start, rng, deaths=2, lives=0.95), retries=5
    )
    assert done.tally.finished == 90
    assert done.tally.failed == 0
    assert sum(one["moved_in"] for one in done.replicas) > 0


def test_a_request_that_kills_engines_stays_where_it_is(made: Plan, tmp_path: Path) -> None:
    poison = int(made.column("source_row").argmin())
    start, deaths = simulated_start(made), list[int]()

    def begin(replica: int, session: Session) -> FaultyEngine:
        def end() -> None:
            deaths.append(replica)
            raise EngineDiedError("it died")

        return FaultyEngine(start(replica, session), poison=frozenset({poison}), end=end)

    output = tmp_path / "results.jsonl"
    done = replay_several(made, 3, output, start=begin, retries=2)
    assert_each_once(made, output)
    [failed] = [line for line in lines_of(output) if line["error"]]
    assert failed["custom_id"] == made.table.column("request_id")[poison].as_py()
    assert len(deaths) == 3
    assert len(set(deaths)) == 1
    assert done.tally.failed == 1


def test_an_engine_that_never_comes_up_leaves_its_part_to_others(
    made: Plan, tmp_path: Path
) -> None:
    start, told = simulated_start(made), list[str]()

    def begin(replica: int, session: Session) -> SimulatedEngine:
        if replica == 1:
            raise EngineDiedError("no such model")
        return start(replica, session)

    output = tmp_path / "results.jsonl"
    done = replay_several(made, 2, output, start=begin, remark=told.append)
    assert_each_once(made, output)
    assert done.tally.failed == 0
    assert told == [
        "replica 1 is given up: the engine did not start: no such model; the others take its "
        "requests"
    ]


def test_answers_stay_together_wherever_few_requests_have_several(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    answers = np.where(np.arange(80) == 3, 4, 1)
    asked = blendplan.requests_from_lists(
        [rng.integers(3, 4000, rng.integers(3, 60)).tolist() for _ in answers],
        output_tokens=rng.integers(1, 60, 80),
        answers=answers,
    )
    made = small_plan(asked, policy="blend", replicas=2, effort=0)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        done = replay_several(
            made,
            4,
            at_first=1 + seed,
            fleet=partial(LateFleet, rng=rng, deaths=6, lives=0.95),
            retries=20,
        )
        assert done.tally.finished == 80
