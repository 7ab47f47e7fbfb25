"""Two replicas of the real vLLM on a Ray cluster of this machine."""

from pathlib import Path

import pytest

from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.run import replay
from tests.engines.test_vllm_replay import ARGUMENTS
from tests.replaying.cluster.machines import machines
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

pytest.importorskip("ray")


def test_two_engines_share_a_plan(vllm: None, tiny_model: Path, tmp_path: Path) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 120)
    made = small_plan(job, policy="blend", kv_tokens=48 * 32, block_size=32, replicas=2, effort=0)
    output = tmp_path / "results.jsonl"
    with machines(2) as cluster:
        done = replay(
            made,
            "vllm",
            output,
            model=str(tiny_model),
            engine_args=ARGUMENTS,
            ray=Cluster(cluster.address, gpus_per_replica=0),
        )
    assert_each_once(made, output)
    assert done.tally.failed == done.tally.restarts == 0
    assert len(done.replicas) == 2
    assert all(one["finished"] >= 30 for one in done.replicas)
    stated = dict(
        zip(
            made.table.column("request_id").to_pylist(),
            made.column("output_tokens_known"),
            strict=True,
        )
    )
    for line in lines_of(output):
        usage = line["response"]["body"]["usage"]
        assert usage["completion_tokens"] == stated[line["custom_id"]]
