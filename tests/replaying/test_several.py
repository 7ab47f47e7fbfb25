"""Several engines share a plan: everything runs once, wherever requests go and whoever dies."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import blendplan
from blendplan.engines.protocol import EngineDiedError, Session
from blendplan.engines.simulated import SimulatedEngine
from blendplan.planfile.plan import Plan
from blendplan.policy.registry import POLICIES
from tests.replaying.replay_faults import FaultyEngine
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file
from tests.replaying.several import LateFleet, replay_several, simulated_start


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


@pytest.mark.parametrize("seed", range(12))
def test_late_reports_and_deaths_lose_and_repeat_nothing(
    made: Plan, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    output = tmp_path / "results.jsonl"
    replicas, deaths = int(rng.integers(2, 6)), int(rng.integers(0, 6))
    done = replay_several(
        made,
        replicas,
        output,
        at_first=int(rng.integers(1, replicas + 1)),
        start=simulated_start(made),
        fleet=lambda start: LateFleet(start, rng, deaths),
        retries=10,
    )
    assert_each_once(made, output)
    assert done.tally.finished == made.metadata["requests"]
    assert not [line for line in lines_of(output) if line["error"]]


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
