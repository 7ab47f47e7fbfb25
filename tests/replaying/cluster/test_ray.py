"""A run on a real Ray cluster: deaths of actors, nodes, the driver and the head lose nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.run import Replayed, replay
from blendplan.replaying.tally import Tally
from tests.replaying.cluster.machines import ROOT, SLOW_ROW, Machines, kill, machines
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file
from tests.replaying.several import replay_several

ray = pytest.importorskip("ray")
KILLS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan for two replicas."""
    job = write_requests_file(tmp_path_factory.mktemp("job") / "requests.jsonl", 300, answers=2)
    return small_plan(job, policy="blend", replicas=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    """A cluster that the tests of this file share, in their order; the last one destroys it."""
    ENGINES._rows.update(SLOW_ROW)
    with machines(3) as started:
        yield started
    del ENGINES._rows["slow"]


def run(made: Plan, output: Path, cluster: Machines, **options: object) -> Replayed:
    where = Cluster(cluster.address, replicas_max=3, patience_s=1.0)
    return replay(made, "slow", output, ray=where, **{"retries": 1000, **options})  # type: ignore[arg-type]


def answers(output: Path) -> set[tuple[str, int]]:
    """Requests and how long their answers are."""
    return {
        (line["custom_id"], line["response"]["body"]["usage"]["completion_tokens"])
        for line in lines_of(output)
    }


def test_a_cluster_gives_what_one_machine_gives(
    made: Plan, cluster: Machines, tmp_path: Path
) -> None:
    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    done = run(made, there, cluster)
    assert_each_once(made, there)
    assert done.tally.restarts == 0
    assert len(done.replicas) == 3
    assert all(one["finished"] for one in done.replicas)
    replay_several(made, 1, here)
    assert answers(there) == answers(here)


def test_random_kills_lose_and_repeat_nothing(
    made: Plan, cluster: Machines, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        output = tmp_path / f"{runs}.jsonl"
        at = int(rng.integers(0, 20))

        def strike(tally: Tally) -> None:
            nonlocal kills, at
            if tally.finished >= at:
                at += int(rng.integers(15, 45))
                pids = cluster.actors()
                kills += kill(rng.permutation(pids)[: int(rng.integers(1, 4))].tolist())

        done = run(made, output, cluster, order="finish", progress=strike)
        assert_each_once(made, output, in_order=False)
        assert done.tally.finished == made.metadata["requests"]
    print(f"{kills} kills in {runs} runs, 0 lost, 0 twice")


def test_a_node_that_goes_and_one_that_comes(made: Plan, cluster: Machines, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    before = len(cluster.nodes)

    def change(tally: Tally) -> None:
        if tally.finished > 40 and len(cluster.nodes) == before:
            cluster.kill_node()
        elif tally.finished > 120 and len(cluster.nodes) == before - 1:
            cluster.add(2)

    done = run(made, output, cluster, progress=change)
    assert_each_once(made, output)
    assert done.tally.finished == made.metadata["requests"]
    assert done.tally.restarts >= 1


@contextmanager
def driver(made: Plan, cluster: Machines, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A driver of a run that has 60 answers; gone at the end of the block."""
    made.write(folder / "plan.arrow")
    words = [str(folder / "plan.arrow"), cluster.address, str(folder / "results.jsonl")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.replaying.cluster.machines", *words],
        cwd=ROOT,
        # So long a driver waits for a head that is gone.
        env={**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            wait_for(process, 60)
            yield process
        finally:
            process.kill()


def wait_for(process: "subprocess.Popen[str]", finished: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        # Ray prints there too, of nodes that died in tests before this one.
        if line.strip().isdigit() and int(line) >= finished:
            return
    raise AssertionError("the driver ended early")


def test_a_killed_driver_goes_on_where_it_was(
    made: Plan, cluster: Machines, tmp_path: Path
) -> None:
    with driver(made, cluster, tmp_path) as process:
        process.kill()
    done = run(made, tmp_path / "results.jsonl", cluster, resume=True)
    assert done.tally.already_done >= 60
    assert_each_once(made, tmp_path / "results.jsonl")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (Cluster("127.0.0.1:1"), 'no Ray cluster answers at "127.0.0.1:1"'),
        (None, "an engine needs 2 GPUs and 1 CPU on one node, the Ray cluster has 0 GPUs and"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    made: Plan, cluster: Machines, where: Cluster | None, told: str
) -> None:
    where = where or Cluster(cluster.address, gpus_per_replica=2)
    with pytest.raises(BlendplanError) as error:
        replay(made, "slow", ray=where)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_survives_the_head_in_its_journal(
    made: Plan, cluster: Machines, tmp_path: Path
) -> None:
    with driver(made, cluster, tmp_path) as process:
        cluster.kill_head()
        process.communicate(timeout=60)
        assert process.returncode != 0
    done = replay_several(made, 2, tmp_path / "results.jsonl", engine="slow", resume=True)
    assert done.tally.already_done >= 60
    assert_each_once(made, tmp_path / "results.jsonl")
