"""Replaying plans on the real SGLang."""

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import blendplan
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineRequest, Launch, Report
from blendplan.engines.simulated import SimulatedEngine
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.replaying.run import replay
from blendplan.requests.fingerprint import tokenizer_fingerprint
from blendplan.simulator.cuda_graphs import GraphSizes
from tests.engines import recording_plugin
from tests.engines.killing import assert_kills_lose_and_repeat_nothing
from tests.engines.tiny import tiny_tokenizer
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

LIMITS = EngineLimits(1536, 8, 64)
ARGUMENTS: dict[str, Any] = {
    "load_format": "dummy",
    "device": "cpu",
    "dtype": "bfloat16",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_cuda_graph": True,
    "mem_fraction_static": 0.3,
    "max_total_tokens": 1536,
    "context_length": 1024,
    "page_size": 1,
    "random_seed": 1,
}

_CHUNKS = ("--chunked-prefill-size", "512")


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> dict[type, list[int]]:
    """Rows in the order in which requests were admitted, by kind of engine."""
    orders: dict[type, list[int]] = {EngineProcess: [], SimulatedEngine: []}
    for kind, order in orders.items():

        def serve(
            self: Any,
            requests: list[EngineRequest],
            original: Callable[..., Report] = kind.serve,  # type: ignore[attr-defined]
            order: list[int] = order,
        ) -> Report:
            report = original(self, requests)
            order.extend(report.began)
            return report

        monkeypatch.setattr(kind, "serve", serve)
    return orders


def test_sglang_admits_what_the_policy_says(
    sglang: None, tiny_model: Path, tmp_path: Path, began: dict[type, list[int]]
) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 60)
    made = small_plan(job, policy="blend", kv_tokens=1536)
    output, told, log = tmp_path / "results.jsonl", list[str](), tmp_path / "steps.parquet"
    # SGLang overlaps scheduling and computing by itself; nothing here turns that off.
    replayed = replay(
        made,
        "sglang",
        output,
        model=str(tiny_model),
        engine_args=ARGUMENTS,
        step_log=log,
        remark=told.append,
    )
    assert told == []  # same capacity and limits as planned
    assert_each_once(made, output)
    simulated = replay(made, step_log=tmp_path / "simulated.parquet").tally
    assert began[EngineProcess] == began[SimulatedEngine]
    assert replayed.tally.failed == 0
    assert replayed.tally.output_tokens == simulated.output_tokens
    assert replayed.tally.preemptions == simulated.preemptions
    steps, planned = (pq.read_table(path) for path in (log, tmp_path / "simulated.parquet"))
    most = made.limits.max_num_batched_tokens
    work = zip(steps["prefill_tokens"], steps["decode_tokens"], strict=True)
    assert all(prefill.as_py() + decode.as_py() <= most for prefill, decode in work)
    assert sum(steps["decode_tokens"].to_pylist()) == sum(planned["decode_tokens"].to_pylist())
    for line in lines_of(output):
        body = line["response"]["body"]
        [choice] = body["choices"]
        assert len(choice["token_ids"]) == body["usage"]["completion_tokens"]
        assert choice["finish_reason"] == "length"


def test_retracted_requests_come_back_first(
    sglang: None, tiny_model: Path, tmp_path: Path, began: dict[type, list[int]]
) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 60)
    made = small_plan(job, policy="fcfs", kv_tokens=512, block_size=1)
    output = tmp_path / "results.jsonl"
    arguments = ARGUMENTS | {"max_total_tokens": 512}
    replayed = replay(made, "sglang", output, model=str(tiny_model), engine_args=arguments)
    assert_each_once(made, output)
    simulated = replay(made).tally
    assert replayed.tally.failed == 0
    assert replayed.tally.output_tokens == simulated.output_tokens
    assert replayed.tally.preemptions > 0
    assert simulated.preemptions > 0
    assert began[EngineProcess] == began[SimulatedEngine]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="each rank needs a core")
def test_all_ranks_schedule_what_the_first_one_says(
    sglang: None,
    tiny_model: Path,
    tmp_path: Path,
    began: dict[type, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|1")
    job = write_requests_file(tmp_path / "requests.jsonl", 40)
    made = small_plan(job, policy="blend", kv_tokens=1536)
    output = tmp_path / "results.jsonl"
    arguments = ARGUMENTS | {"tp_size": 2}
    replayed = replay(made, "sglang", output, model=str(tiny_model), engine_args=arguments)
    assert_each_once(made, output)
    simulated = replay(made).tally
    assert replayed.tally.failed == 0
    assert replayed.tally.output_tokens == simulated.output_tokens
    assert began[EngineProcess] == began[SimulatedEngine]


def test_bodies_go_to_sglang_s_own_server_and_come_back(
    sglang: None, tiny_model: Path, tmp_path: Path
) -> None:
    model = tiny_tokenizer(tiny_model, tmp_path / "model")
    asked = {"temperature": 0, "max_tokens": 5, "ignore_eos": True}
    chat = {"messages": [{"role": "user", "content": "one two three"}], **asked}
    bodies: list[dict[str, Any]] = [
        {"custom_id": "chat", "url": "/v1/chat/completions", "body": chat},
        {"id": "text", "prompt": "four five six", **asked},
        {"id": "tokens", "prompt_token_ids": [7, 8, 9], **asked, "return_token_ids": True},
        {"id": "two", "prompt": "seven", **asked, "temperature": 1, "n": 2},
        {"id": "three", "prompt": "seven eight", **asked, "temperature": 1, "n": 3},
        {"id": "probable", "prompt": "eight", **asked, "logprobs": 2},
        {"id": "odd", "prompt": "nine", **asked, "frobnicate": 1, "metadata": {"a": "b"}},
        {"id": "hot", "prompt": "ten", **asked, "temperature": -3},
    ]
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    made = small_plan(job, policy="dfs", kv_tokens=8192)
    told: list[str] = []
    replayed = replay(
        made,
        "sglang",
        tmp_path / "results.jsonl",
        model=str(model),
        engine_args=ARGUMENTS,
        remark=told.append,
    )
    assert any("KV cache of 8,192 tokens, the engine has 1,536" in line for line in told)
    assert (replayed.tally.finished, replayed.tally.failed) == (7, 1)
    lines = {line["custom_id"]: line for line in lines_of(tmp_path / "results.jsonl")}
    assert list(lines) == [body.get("id", body.get("custom_id")) for body in bodies]
    answer = lines["chat"]["response"]["body"]
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] == 5  # <user> one two three <assistant>
    assert lines["text"]["response"]["body"]["choices"][0]["text"]
    assert lines["text"]["response"]["body"]["usage"]["completion_tokens"] == 5
    assert len(lines["tokens"]["response"]["body"]["choices"][0]["token_ids"]) == 5
    for name, answers in (("two", 2), ("three", 3)):
        assert len(lines[name]["response"]["body"]["choices"]) == answers
    logprobs = lines["probable"]["response"]["body"]["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["top_logprobs"]) == 5
    assert lines["odd"]["response"]["status_code"] == 200
    assert lines["hot"]["response"]["status_code"] == 400


def test_a_plan_of_another_vocabulary_is_refused(
    sglang: None, tiny_model: Path, tmp_path: Path
) -> None:
    model = tiny_tokenizer(tiny_model, tmp_path / "model")
    made = small_plan(write_requests_file(tmp_path / "requests.jsonl", 5), policy="dfs")
    found = tokenizer_fingerprint(model)
    assert found is not None
    other = found.as_metadata() | {"vocabulary_sha256": "0" * 64, "vocabulary_size": 77}
    made = Plan(made.table, {**made.metadata, "tokenizer": other})
    output = tmp_path / "results.jsonl"
    with pytest.raises(BlendplanError, match=r"another tokenizer .* has 77 tokens, that of"):
        replay(made, "sglang", output, model=str(model), engine_args=ARGUMENTS)


def test_a_killed_replay_loses_and_repeats_nothing(
    sglang: None, tiny_model: Path, tmp_path: Path
) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 60)
    made = small_plan(job, policy="blend", kv_tokens=1536)
    assert_kills_lose_and_repeat_nothing(made, "sglang", tiny_model, ARGUMENTS, tmp_path, [5])


def test_a_server_of_the_user_s_own_follows_a_plan(
    sglang: None, tiny_model: Path, tmp_path: Path, began: dict[type, list[int]]
) -> None:
    """Requests of somebody who knows nothing of the plan, found by their prompts."""
    job = write_requests_file(tmp_path / "requests.jsonl", 20)
    made = small_plan(job, policy="dfs", kv_tokens=1536, max_num_seqs=1)
    made.write(tmp_path / "plan.arrow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = {**ARGUMENTS, "model_path": tiny_model, "port": port, "max_running_requests": 1}
    flags |= {"chunked_prefill_size": 128, "served_model_name": "tiny", "log_level": "warning"}
    command = [sys.executable, "-m", "sglang.launch_server", "--enable-mixed-chunk"]
    command += ["--skip-server-warmup"]
    model = tiny_tokenizer(tiny_model, tmp_path / "model")
    flags["model_path"] = model
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        command += [flag] if value is True else [flag, str(value)]
    environment = os.environ | {
        "BLENDPLAN_PLAN": str(tmp_path / "plan.arrow"),
        "BLENDPLAN_WAIT_S": "60",
        recording_plugin.FILE: str(tmp_path / "admitted"),
        "PYTHONPATH": os.pathsep.join([str(_as_installed(tmp_path)), *sys.path]),
    }
    rows = [row for row in range(len(made)) if row % 2 == 0] + list(range(1, len(made), 2))

    def ask(row: int) -> None:
        tokens = made.table.column("prompt_token_ids")[row].values.to_pylist()
        body = {"model": "tiny", "prompt": tokens, "max_tokens": 3, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as response:
            assert len(json.load(response)["choices"]) == 1

    log = tmp_path / "server.log"
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command, env=environment, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            while not _answers_at(f"http://127.0.0.1:{port}/model_info"):
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            with ThreadPoolExecutor(len(rows)) as clients:
                list(clients.map(ask, rows))
        finally:
            os.killpg(process.pid, 9)
            process.wait()
    replay(made)
    admitted = [int(row) for row in (tmp_path / "admitted").read_text().split()]
    # Strangers, such as health checks, have rows behind those of the plan.
    planned = [row for row in admitted if row < len(made)]
    assert planned == began[SimulatedEngine] != rows


def _answers_at(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _as_installed(folder: Path) -> Path:
    """A folder that says to Python what an installed blendplan offers to SGLang."""
    site = folder / "site"
    info = site / f"blendplan-{blendplan.__version__}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: blendplan\nVersion: {blendplan.__version__}\n"
    )
    project = Path(__file__).parents[2] / "pyproject.toml"
    offered = tomllib.loads(project.read_text())["project"]["entry-points"]["sglang.srt.plugins"]
    offered["recorder"] = "tests.engines.recording_plugin:record"
    lines = "".join(f"{name} = {value}\n" for name, value in offered.items())
    (info / "entry_points.txt").write_text(f"[sglang.srt.plugins]\n{lines}")
    return site


@pytest.mark.filterwarnings("ignore")
def test_what_a_plan_asks_of_sglang(sglang: None, tiny_model: Path) -> None:
    from blendplan.engines.sglang.arguments import own_arguments, server_arguments

    graphs = {"sglang": GraphSizes(mixed=[16, 64], decode=[1, 5, 8])}
    launch = Launch(str(tiny_model), LIMITS, graphs=graphs)
    arguments = own_arguments(launch)
    assert arguments["cuda_graph_bs_decode"] == [1, 5, 8]
    assert arguments["cuda_graph_bs_prefill"] == [16, 64]
    assert arguments["enable_mixed_chunk"] is True
    assert arguments["chunked_prefill_size"] == 64
    flags = ("--chunked-prefill-size", "32", "--tool-call-parser=hermes")
    launch = Launch(str(tiny_model), LIMITS, arguments=ARGUMENTS, flags=flags)
    given = server_arguments(launch, planned=True)
    assert (given.chunked_prefill_size, given.max_running_requests) == (32, 8)
    assert (given.tool_call_parser, given.page_size) == ("hermes", 1)
    assert not given.disable_overlap_schedule
    launch = Launch(str(tiny_model), LIMITS, flags=("--chunk-prefill-size", "32"))
    with pytest.raises(BlendplanError, match="does not understand what stands after --: unrec"):
        server_arguments(launch, planned=True)


def test_spatial_sharing(sglang: None, tiny_model: Path) -> None:
    from blendplan.engines.sglang.arguments import own_arguments, server_arguments

    graphs = {"sglang": GraphSizes(mixed=[16, 64], decode=[1, 5, 8])}
    arguments = own_arguments(Launch(str(tiny_model), LIMITS, graphs=graphs, pdmux=True))
    assert arguments["cuda_graph_bs_decode"] == [1, 5, 8]
    assert "cuda_graph_bs_prefill" not in arguments
    assert arguments["enable_pdmux"] is True
    assert arguments["chunked_prefill_size"] == -1
    assert arguments["disable_overlap_schedule"] is True
    assert arguments["enable_mixed_chunk"] is False
    for against in ({"arguments": {"chunked_prefill_size": 512}}, {"flags": _CHUNKS}):
        launch = Launch(str(tiny_model), LIMITS, pdmux=True, **against)
        with pytest.raises(BlendplanError, match="needs chunked_prefill_size=-1, not 512"):
            server_arguments(launch, planned=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_prefill_size": 512}, "did you mean 'chunked_prefill_size'"),
        ({"schedule_policy": "lpm"}, 'needs schedule_policy="fcfs", not "lpm"; leave it out'),
        ({"dp_size": 2}, "needs dp_size=1, not 2; leave it out, or plan with --replicas"),
        ({"pp_size": 2}, "needs pp_size=1, not 2"),
        ({"speculative_algorithm": "X"}, "SGLang refuses its arguments: Unknown speculative"),
    ],
)
def test_arguments_that_are_refused(
    sglang: None, tiny_model: Path, arguments: dict[str, Any], message: str
) -> None:
    from blendplan.engines.sglang.arguments import server_arguments

    launch = Launch(str(tiny_model), LIMITS, arguments=ARGUMENTS | arguments)
    with pytest.raises(BlendplanError, match=message):
        server_arguments(launch, planned=True)
