"""Replaying plans on the real vLLM."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineRequest, Launch
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally
from tests.engines.tiny import tiny_tokenizer
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

KILLS = 3
LIMITS = EngineLimits(1536, 8, 64)
ARGUMENTS = {
    "load_format": "dummy",
    "enforce_eager": True,
    "block_size": 32,
    "max_model_len": 1024,
    "num_gpu_blocks_override": 49,  # one is a placeholder
    "async_scheduling": False,
    "gpu_memory_utilization": 0.1,
    "served_model_name": ["tiny", "llama-3.1-8b"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan for the KV cache that `ARGUMENTS` give vLLM."""
    job = write_requests_file(tmp_path_factory.mktemp("job") / "requests.jsonl", 60)
    return small_plan(job, policy="blend", kv_tokens=48 * 32, block_size=32)


def run(made: Plan, model: Path, **options: Any) -> Any:
    """`replay` on vLLM with what a tiny model on a CPU needs."""
    arguments = ARGUMENTS | options.pop("engine_args", {})
    return replay(made, "vllm", model=str(model), engine_args=arguments, **options)


def test_vllm_does_what_was_planned(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path
) -> None:
    output, told = tmp_path / "results.jsonl", list[str]()
    logs = {name: tmp_path / f"{name}.parquet" for name in ("step_log", "request_log")}
    replayed = run(made, tiny_model, output=output, remark=told.append, **logs)
    assert told == []  # same capacity and limits as planned
    assert_each_once(made, output)
    planned = made.metadata["predicted"]
    simulated = replay(made).tally
    assert replayed.tally.steps == simulated.steps
    assert replayed.tally.preemptions == simulated.preemptions
    assert replayed.tally.cached_tokens == simulated.cached_tokens
    assert replayed.tally.output_tokens == planned["output_tokens"]
    # The same steps, one by one.
    replay(made, step_log=tmp_path / "simulated.parquet")
    same = ["prefill_tokens", "decode_tokens", "kv_tokens_read", "sequences", "prefill_pairs"]
    same += ["kv_tokens_used", "running"]
    steps = pq.read_table(logs["step_log"])
    assert steps.select(same).equals(pq.read_table(tmp_path / "simulated.parquet").select(same))
    assert min(steps["time_s"].to_pylist()) > 0
    for line in lines_of(output):
        body = line["response"]["body"]
        [choice] = body["choices"]
        assert len(choice["token_ids"]) == body["usage"]["completion_tokens"]
        assert choice["finish_reason"] == "length"
        expected = "tiny" if line["custom_id"].startswith("batch") else str(tiny_model)
        assert body["model"] == expected
    requests = pq.read_table(logs["request_log"])
    assert requests.num_rows == len(made)
    for row in requests.to_pylist():
        assert row["submitted_s"] < row["first_token_s"] <= row["finished_s"]


@pytest.mark.parametrize("policy", ["fcfs", "dfs"])
def test_several_answers_share_their_prompt_as_planned(
    vllm: None, tiny_model: Path, tmp_path: Path, policy: str
) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 40, answers=4)
    made = small_plan(job, policy=policy, kv_tokens=48 * 32, block_size=32)
    output = tmp_path / "results.jsonl"
    replayed = run(made, tiny_model, output=output)
    assert_each_once(made, output)
    simulated = replay(made).tally
    assert replayed.tally.output_tokens == simulated.output_tokens
    assert replayed.tally.prompt_tokens == simulated.prompt_tokens
    assert replayed.tally.cached_tokens == simulated.cached_tokens
    assert replayed.tally.preemptions == simulated.preemptions
    # Nothing is submitted behind answers that wait, so a request may come a step later.
    assert 0 <= replayed.tally.steps - simulated.steps <= 2
    for line in lines_of(output):
        body = line["response"]["body"]
        tokens = [len(choice["token_ids"]) for choice in body["choices"]]
        assert len(set(tokens)) == 1
        assert sum(tokens) == body["usage"]["completion_tokens"]


def test_text_and_chat_go_through_the_model_s_tokenizer(
    vllm: None, tiny_model: Path, tmp_path: Path
) -> None:
    model = tiny_tokenizer(tiny_model, tmp_path / "model")
    asked = {"temperature": 0, "max_tokens": 5, "ignore_eos": True}
    chat = {"messages": [{"role": "user", "content": "one two three"}], **asked}
    bodies: list[dict[str, Any]] = [
        {"custom_id": "chat", "url": "/v1/chat/completions", "body": chat},
        {"id": "text", "prompt": "four five six", **asked},
        {"id": "two", "prompt": "seven", **asked, "temperature": 1, "n": 2},
        {"id": "probable", "prompt": "eight", **asked, "logprobs": 2},
        {"id": "odd", "prompt": "nine", **asked, "frobnicate": 1},
        {"id": "hot", "prompt": "ten", **asked, "temperature": -3},
    ]
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    made = small_plan(job, policy="fcfs", block_size=32, kv_tokens=48 * 32)
    run(made, model, output=tmp_path / "results.jsonl")
    lines = {line["custom_id"]: line for line in lines_of(tmp_path / "results.jsonl")}
    answer = lines["chat"]["response"]["body"]
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] == 5  # <user> one two three <assistant>
    assert lines["text"]["response"]["body"]["choices"][0]["text"]
    assert lines["text"]["response"]["body"]["usage"]["completion_tokens"] == 5
    assert len(lines["two"]["response"]["body"]["choices"]) == 2
    assert lines["two"]["response"]["body"]["usage"]["completion_tokens"] == 10
    logprobs = lines["probable"]["response"]["body"]["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["top_logprobs"]) == 5
    assert all(value <= 0 for value in logprobs["token_logprobs"])
    assert lines["odd"]["error"]["code"] == "unsupported_parameter"
    assert "'frobnicate'" in lines["odd"]["error"]["message"]
    assert lines["hot"]["error"]["code"] == "invalid_request"


def test_another_capacity_moves_the_partition(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path
) -> None:
    told: list[str] = []
    longest = int(made.column("prompt_tokens").max())
    replayed = run(
        made,
        tiny_model,
        output=tmp_path / "results.jsonl",
        remark=told.append,
        engine_args={"num_gpu_blocks_override": 25, "max_model_len": longest, "max_num_seqs": 9},
    )
    assert any("KV cache of 1,536 tokens, the engine has 768" in line for line in told)
    assert any("planned" not in line and "the engine takes 9 and 128" in line for line in told)
    assert any("1 requests can never run" in line for line in told)
    assert (replayed.tally.finished, replayed.tally.failed) == (59, 1)
    assert_each_once(made, tmp_path / "results.jsonl")


def test_an_unknown_argument_is_one_line(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path
) -> None:
    with pytest.raises(BlendplanError, match="no engine argument 'max_num_seq'; did you mean"):
        run(made, tiny_model, output=tmp_path / "r.jsonl", engine_args={"max_num_seq": 3})
    assert list(tmp_path.iterdir()) == []


def test_graph_sizes_reach_vllm(vllm: None, tiny_model: Path) -> None:
    from blendplan.engines.vllm.arguments import engine_arguments

    known = type("EngineArgs", (), {"__init__": lambda self, model: None})
    launch = Launch(str(tiny_model), LIMITS, graph_sizes=[1, 5, 8])
    assert engine_arguments(launch, known)["cudagraph_capture_sizes"] == [1, 5, 8]


def test_a_killed_vllm_is_started_again(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    begin = EngineProcess.__init__

    def watched(self: EngineProcess, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        pids.append(self.pid)

    def kill_once(tally: Tally) -> None:
        if tally.finished >= 20 and len(pids) == 1:
            os.kill(pids[0], signal.SIGKILL)

    monkeypatch.setattr(EngineProcess, "__init__", watched)
    output = tmp_path / "results.jsonl"
    replayed = run(made, tiny_model, output=output, progress=kill_once)
    assert replayed.tally.restarts == 1
    assert replayed.tally.failed == 0
    output.with_name("results.jsonl.engine.log").unlink(missing_ok=True)
    assert_each_once(made, output)


def test_a_killed_replay_loses_and_repeats_nothing(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path
) -> None:
    made.write(tmp_path / "plan.arrow")
    output = tmp_path / "results.jsonl"
    journal = output.with_name("results.jsonl.journal")
    words = [f"{name}={json.dumps(value)}" for name, value in ARGUMENTS.items()]
    command = [sys.executable, "-m", "blendplan", "replay", str(tmp_path / "plan.arrow")]
    command += ["--engine", "vllm", "--model", str(tiny_model), "-o", str(output), "--resume"]
    command += [word for argument in words for word in ("--engine-arg", argument)]
    rng = np.random.default_rng(3)
    written: set[bytes] = set()
    for _ in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        before = len(written)
        # Kill it somewhere between its first and its last answer.
        wanted = before + int(rng.integers(1, 15))
        while process.poll() is None and len(_lines(journal)) < wanted:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        now = _lines(journal) | _lines(output)
        assert written <= now
        assert len(now) > before or len(now) == len(made)
        written = now
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["already_done"], told["finished"]) == (len(written), len(made) - len(written))
    assert written <= _lines(output)
    output.with_name("results.jsonl.engine.log").unlink(missing_ok=True)
    assert_each_once(made, output)


def _lines(path: Path) -> set[bytes]:
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    return {line for line in whole.split(b"\n") if b'"custom_id"' in line}


def test_the_adapter_reports_what_it_is_asked(vllm: None, tiny_model: Path) -> None:
    from functools import partial

    from blendplan.engines.vllm.adapter import VllmEngine

    launch = Launch(str(tiny_model), EngineLimits(1536, 4, 64), arguments=ARGUMENTS)
    engine = EngineProcess(partial(VllmEngine, launch))
    try:
        assert engine.capacity.limits.kv_tokens == 48 * 32
        assert engine.capacity.context_tokens == 1024
        asked = [EngineRequest(row, [7 + row] * 50, output_tokens=3) for row in range(3)]
        report = engine.step(asked, prefill_tokens=10)
        assert (report.running, report.waiting, report.backlog_tokens) == (1, 2, 40)
        report = engine.step([], prefill_tokens=None)
        assert (report.running, report.waiting) == (2, 1)
    finally:
        engine.close()
