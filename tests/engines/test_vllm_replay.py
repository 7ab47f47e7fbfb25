"""Replaying plans on the real vLLM."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import Launch
from blendplan.engines.vllm.arguments import server_arguments
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally
from blendplan.simulator.cuda_graphs import GraphSizes
from tests.engines.killing import assert_kills_lose_and_repeat_nothing
from tests.engines.tiny import tiny_tokenizer
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

KILLS = 1
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
        assert body["model"] == "tiny"
    requests = pq.read_table(logs["request_log"])
    assert requests.num_rows == len(made)
    for row in requests.to_pylist():
        assert row["submitted_s"] < row["first_token_s"] <= row["finished_s"]


@pytest.mark.parametrize("policy", ["blend"])
def test_steps_are_the_planned_ones_with_asynchronous_scheduling(
    vllm: None, tiny_model: Path, tmp_path: Path, policy: str
) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 60)
    made = small_plan(job, policy=policy, kv_tokens=24 * 32, block_size=32, async_scheduling=True)
    logs = [tmp_path / "vllm.parquet", tmp_path / "simulated.parquet"]
    executor = "tests.engines.async_executor.AsyncScheduled"
    arguments = {"num_gpu_blocks_override": 25, "distributed_executor_backend": executor}
    arguments["max_model_len"] = 768
    output = tmp_path / "results.jsonl"
    replayed = run(made, tiny_model, output=output, step_log=logs[0], engine_args=arguments)
    assert_each_once(made, output)
    simulated = replay(made, step_log=logs[1]).tally
    assert simulated.preemptions > 0
    assert replayed.tally.preemptions == simulated.preemptions
    assert replayed.tally.steps == simulated.steps == made.metadata["predicted"]["steps"]
    same = ["prefill_tokens", "decode_tokens", "kv_tokens_read", "sequences", "prefill_pairs"]
    same += ["kv_tokens_used", "running"]
    steps, planned = (pq.read_table(log).select(same) for log in logs)
    assert steps.equals(planned)


@pytest.mark.filterwarnings("ignore")  # of vLLM, while it is imported
def test_a_plan_for_asynchronous_scheduling_asks_for_it(vllm: None, tiny_model: Path) -> None:
    limits = replace(LIMITS, async_scheduling=True)
    asked = server_arguments(Launch(str(tiny_model), limits), None)
    assert asked.async_scheduling is True
    users = Launch(str(tiny_model), limits, arguments={"async_scheduling": False})
    assert server_arguments(users, None).async_scheduling is False
    assert server_arguments(Launch(str(tiny_model), LIMITS), None).async_scheduling is None


@pytest.mark.parametrize("policy", ["dfs"])
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
    assert replayed.tally.steps == simulated.steps
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
    # A field that vLLM's server does not know is none of its business.
    assert lines["odd"]["response"]["body"]["choices"][0]["text"]
    assert lines["hot"]["response"]["status_code"] == 400
    assert "temperature" in lines["hot"]["error"]["error"]["message"]


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
    assert any("was refused with status 400" in line for line in told)
    assert (replayed.tally.finished, replayed.tally.failed) == (59, 1)
    assert_each_once(made, tmp_path / "results.jsonl")


def test_an_unknown_argument_is_one_line(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path
) -> None:
    with pytest.raises(BlendplanError, match="no engine argument 'max_num_seq'; did you mean"):
        run(made, tiny_model, output=tmp_path / "r.jsonl", engine_args={"max_num_seq": 3})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # of vLLM, while it is imported
def test_graph_sizes_reach_vllm(vllm: None, tiny_model: Path) -> None:
    launch = Launch(str(tiny_model), LIMITS, graphs={"vllm": GraphSizes([1, 5, 20], [1, 5])})
    assert server_arguments(launch, None).cudagraph_capture_sizes == [1, 5, 20]


@pytest.mark.filterwarnings("ignore")  # of vLLM, while it is imported
@pytest.mark.parametrize(
    "said",
    [
        {"cudagraph_capture_sizes": [4]},
        {"max_cudagraph_capture_size": 4},
        {"compilation_config": {"cudagraph_capture_sizes": [4]}},
    ],
)
def test_the_user_s_own_graph_sizes_win(vllm: None, tiny_model: Path, said: dict[str, Any]) -> None:
    launch = Launch(
        str(tiny_model), LIMITS, graphs={"vllm": GraphSizes([1, 5], [1, 5])}, arguments=said
    )
    sizes = server_arguments(launch, None).cudagraph_capture_sizes
    assert sizes == said.get("cudagraph_capture_sizes")
    flags = replace(launch, arguments={}, flags=("--max-cudagraph-capture-size", "4"))
    assert server_arguments(flags, None).cudagraph_capture_sizes is None
    other = replace(launch, arguments={"compilation_config": {"cudagraph_mode": "PIECEWISE"}})
    assert server_arguments(other, None).cudagraph_capture_sizes == [1, 5]


def test_a_killed_vllm_is_started_again(
    vllm: None, tiny_model: Path, made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    killed: list[int] = []
    begin = EngineProcess.__init__

    def watched(self: EngineProcess, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        pids.append(self.pid)

    def kill_once(tally: Tally) -> None:
        if tally.finished >= 20 and not killed:
            killed.append(pids[0])
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
    # Somewhere between the first and the last answer.
    kills = np.random.default_rng(3).integers(1, 15, KILLS).tolist()
    assert_kills_lose_and_repeat_nothing(made, "vllm", tiny_model, ARGUMENTS, tmp_path, kills)


@pytest.mark.filterwarnings("ignore")  # of vLLM, while it is imported
def test_flags_and_arguments_by_name_are_read_alike(vllm: None, tiny_model: Path) -> None:
    by_name = Launch(
        str(tiny_model),
        arguments={"tool_call_parser": "hermes", "max_model_len": 512, "served_model_name": "m"},
    )
    flags = ("--tool-call-parser", "hermes", "--max-model-len=512", "--served-model-name", "m")
    assert vars(server_arguments(by_name, None)) == vars(
        server_arguments(Launch(str(tiny_model), flags=flags), None)
    )
    with pytest.raises(BlendplanError, match="does not understand its arguments"):
        server_arguments(Launch(str(tiny_model), flags=("--no-such-flag",)), None)
    with pytest.raises(BlendplanError, match="needs scheduler_cls="):
        launch = Launch(str(tiny_model), arguments={"scheduler_cls": "a.b"})
        server_arguments(launch, tiny_model)
    with pytest.raises(BlendplanError, match="plan with --replicas"):
        launch = Launch(str(tiny_model), flags=("--data-parallel-size", "2"))
        server_arguments(launch, tiny_model)
