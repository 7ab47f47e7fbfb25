"""Two replicas of the real vLLM on a Ray cluster of this machine."""

import os
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from blendplan.engines.protocol import Engine, Launch, Session
from blendplan.engines.registry import ENGINES
from blendplan.engines.vllm.adapter import VLLM
from blendplan.planfile.plan import Plan
from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.run import replay
from tests.engines.test_vllm_replay import ARGUMENTS
from tests.replaying.cluster.machines import machines
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

pytest.importorskip("ray")

REPLICAS = 2
# A folder in which engines leave a file each once they are up.
MEETING = "BLENDPLAN_TEST_MEETING"
_LONGEST_S = 300.0


def _start_together(plan: Plan | None, launch: Launch, session: Session) -> Engine:
    engine = VLLM.start(plan, launch, session)
    meeting = Path(os.environ[MEETING])
    (meeting / uuid.uuid4().hex).touch()
    begun = time.monotonic()
    while len(list(meeting.iterdir())) < REPLICAS and time.monotonic() - begun < _LONGEST_S:
        time.sleep(0.05)
    return engine


# An engine that is up long before the other one takes all of a small job, as it should.
TOGETHER = replace(VLLM, start=_start_together)


def test_two_engines_share_a_plan(
    vllm: None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    monkeypatch.setenv(MEETING, str(meeting))
    monkeypatch.setitem(ENGINES._rows, "together", f"{__name__}:TOGETHER")
    job = write_requests_file(tmp_path / "requests.jsonl", 120)
    made = small_plan(
        job, policy="blend", kv_tokens=48 * 32, block_size=32, replicas=REPLICAS, effort=0
    )
    output = tmp_path / "results.jsonl"
    with machines(REPLICAS) as cluster:
        done = replay(
            made,
            "together",
            output,
            model=str(tiny_model),
            engine_args=ARGUMENTS,
            ray=Cluster(cluster.address, gpus_per_replica=0),
        )
    assert_each_once(made, output)
    assert done.tally.failed == done.tally.restarts == 0
    assert len(done.replicas) == REPLICAS
    assert all(one["finished"] > 0 for one in done.replicas)
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
