"""Several engines share a plan: everything runs once, wherever requests go and whoever dies."""

from pathlib import Path

import numpy as np
import pytest

from blendplan.planfile.plan import Plan
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
