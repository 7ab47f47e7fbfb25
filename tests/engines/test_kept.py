"""Several runs on one engine, planned and by the engine's own scheduler."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blendplan.engines.kept import KeptEngine
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.replaying.run import replay
from blendplan.requests.read import read_requests
from tests.replaying.replay_faults import TOY, TOY_ROW
from tests.replaying.replay_jobs import write_requests_file


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES._rows, "toy", TOY_ROW["toy"])


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    """Two plans of different requests, for the same engine."""
    folder = tmp_path_factory.mktemp("plans")
    made = []
    for count, policy in ((30, "blend"), (50, "fcfs")):
        path = write_requests_file(folder / f"{count}.jsonl", count)
        requests = read_requests(path)
        made.append(plan(requests, gpu="l4", policy=policy, kv_tokens=100_000, max_num_seqs=8))
    return made


def answered(path: Path) -> set[str]:
    return {json.loads(line)["custom_id"] for line in path.read_text().splitlines()}


def ids(made: Plan) -> set[str]:
    return set(made.table.column("request_id").to_pylist())


def test_runs_follow_each_other_on_one_engine(toy: None, plans: list[Plan], tmp_path: Path) -> None:
    with KeptEngine(TOY) as kept:
        for number, (made, stock) in enumerate(
            [(plans[0], False), (plans[1], True), (plans[1], False), (plans[0], True)]
        ):
            path = tmp_path / f"{number}.jsonl"
            done = replay(made, "toy", path, model="m", kept=kept, stock=stock)
            assert answered(path) == ids(made)
            assert done.tally.failed == 0
            assert done.tally.finished == len(made)
            assert done.tally.steps >= len(made) * 3 / 8
        assert kept.starts == 1


def test_another_start_takes_another_engine(toy: None, plans: list[Plan], tmp_path: Path) -> None:
    with KeptEngine(TOY) as kept:
        for number, arguments in enumerate([{}, {"dtype": "half"}, {"dtype": "half"}]):
            path = tmp_path / f"{number}.jsonl"
            replay(plans[0], "toy", path, model="m", kept=kept, engine_args=arguments)
            assert answered(path) == ids(plans[0])
        assert kept.starts == 2


def test_one_engine_runs_all_step_sizes_and_ways_to_schedule(
    toy: None, plans: list[Plan], tmp_path: Path
) -> None:
    """The toy has the limits that it is started with, and says so."""

    def seen(number: int, kept: KeptEngine, **engine: Any) -> EngineLimits:
        metadata = plans[0].metadata
        made = replace(plans[0], metadata=metadata | {"engine": metadata["engine"] | engine})
        path = tmp_path / f"{number}.jsonl"
        done = replay(made, "toy", path, model="m", kept=kept)
        assert answered(path) == ids(made)
        assert done.capacity is not None
        return done.capacity.limits

    with KeptEngine(TOY, step_tokens=4096) as kept:
        small = seen(0, kept, max_num_batched_tokens=512, async_scheduling=True)
        assert small.max_num_batched_tokens == 512
        assert seen(1, kept, max_num_batched_tokens=4096).max_num_batched_tokens == 4096
        assert seen(2, kept, kv_tokens=50_000) == replace(small, max_num_batched_tokens=2048)
        assert kept.starts == 1
        assert seen(3, kept, max_num_batched_tokens=8192).max_num_batched_tokens == 8192
        assert kept.starts == 2
    with KeptEngine(TOY) as kept:
        seen(4, kept)
        assert seen(5, kept, async_scheduling=True).async_scheduling
        assert kept.starts == 2


def test_an_engine_that_died_is_replaced(toy: None, plans: list[Plan], tmp_path: Path) -> None:
    with KeptEngine(TOY) as kept:
        replay(plans[0], "toy", tmp_path / "first.jsonl", model="m", kept=kept)
        assert kept._engine is not None
        kept._engine._kill()
        replay(plans[1], "toy", tmp_path / "second.jsonl", model="m", kept=kept)
        assert answered(tmp_path / "second.jsonl") == ids(plans[1])
        assert kept.starts == 2


def test_an_engine_that_cannot_go_on_is_started_each_time(
    plans: list[Plan], tmp_path: Path
) -> None:
    with KeptEngine(ENGINES.get("sim")) as kept:
        for _ in range(2):
            assert replay(plans[0], "sim", kept=kept).tally.finished == len(plans[0])
        assert kept.starts == 0


def test_the_simulated_engine_has_no_scheduler_of_its_own(plans: list[Plan]) -> None:
    with pytest.raises(BlendplanError, match="no scheduler of its own; plan with another policy"):
        replay(plans[0], "sim", stock=True)


def test_own_scheduler_gets_requests_in_the_order_of_the_plan(
    toy: None, plans: list[Plan], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    replay(plans[0], "toy", path, model="m", stock=True, order="finish")
    lines = [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]
    assert lines == plans[0].table.column("request_id").to_pylist()  # three steps each
