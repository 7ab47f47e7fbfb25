"""`PlannedScheduler` in a vLLM that the user starts: batch runner, server, library."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from blendplan.planfile.plan import Plan
from tests.engines.tiny import tiny_tokenizer
from tests.replaying.replay_jobs import lines_of, small_plan

SCHEDULER = "tests.engines.recording_scheduler.RecordingScheduler"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
FLAGS = [
    *("--load-format", "dummy", "--enforce-eager", "--block-size", "32", "--max-model-len", "512"),
    *("--max-num-seqs", "8", "--max-num-batched-tokens", "64", "--served-model-name", "m"),
    *("--gpu-memory-utilization", "0.1", "--num-gpu-blocks-override", "49"),
]
CHILD = """
import asyncio, json, sys
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

async def one(engine, prompt, name):
    async for output in engine.generate(
        {"prompt_token_ids": prompt}, SamplingParams(max_tokens=4, ignore_eos=True), name
    ):
        pass
    return len(output.outputs[0].token_ids)

async def main(arguments, prompts):
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    tasks = [one(engine, prompt, f"mine-{place}") for place, prompt in enumerate(prompts)]
    print(json.dumps(await asyncio.gather(*tasks)))
    engine.shutdown()

if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
"""


def chat(row: int) -> dict[str, Any]:
    """Requests of three families, in turn in the file and one after the other in its tree."""
    words = [WORDS[row % 3]] * 20 + [WORDS[row // 11], WORDS[row % 11]]
    messages = [{"role": "user", "content": " ".join(words)}]
    return {"model": "m", "messages": messages, "max_tokens": 4, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(vllm: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tiny_model, tmp_path_factory.mktemp("own") / "model")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("job") / "requests.jsonl"
    url, method = "/v1/chat/completions", "POST"
    lines = [
        {"custom_id": f"r{row}", "method": method, "url": url, "body": chat(row)}
        for row in range(60)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def made(job: Path, model: Path) -> Plan:
    from blendplan.requests.read import read_requests

    requests = read_requests(job, model_dir=model)
    return small_plan(requests, policy="dfs", kv_tokens=48 * 32, block_size=32)


@pytest.fixture
def plan_file(made: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "plan.arrow"
    made.write(path)
    return path


def environment(began: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, "BEGAN": str(began)}


def follow(plan_file: Path, **options: Any) -> list[str]:
    given = {"blendplan": str(plan_file), **options}
    return ["--scheduler-cls", SCHEDULER, "--additional-config", json.dumps(given)]


def rows_in(began: Path) -> list[int]:
    return [int(line) for line in began.read_text().split()]


def test_the_batch_runner_follows_the_plan(
    model: Path, job: Path, made: Plan, plan_file: Path, tmp_path: Path
) -> None:
    began, output = tmp_path / "began", tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.run_batch", "--model", str(model)]
    command += ["-i", str(job), "-o", str(output), *FLAGS]
    # All are sent at once: the first waits for the others.
    command += follow(plan_file, blendplan_wait_s=60)
    done = subprocess.run(command, env=environment(began), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["response"]["status_code"] for line in lines_of(output)] == [200] * 60
    # Rows of the plan are in the order of admission, which is not that of the file.
    assert rows_in(began) == list(range(60))
    assert made.column("source_row").tolist() != list(range(60))


def test_a_server_serves_strangers_and_does_not_wait_for_ever(
    model: Path, made: Plan, plan_file: Path, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *FLAGS, *follow(plan_file)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=environment(began), stdout=output, stderr=output)

    def ask(name: str, body: dict[str, Any]) -> int:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        headers = {"Content-Type": "application/json", "X-Request-Id": name}
        with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=120) as answer:
            return int(answer.status)

    try:
        deadline = time.monotonic() + 300
        while b"Application startup complete" not in log.read_bytes():
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        last = [f"r{row}" for row in made.column("source_row")[-12:]]
        with ThreadPoolExecutor(13) as clients:
            other = [{"role": "user", "content": "ten ten ten"}]
            stranger = clients.submit(ask, "somebody", {**chat(0), "messages": other})
            # By their ids, although all have the prompt of the first.
            answers = list(clients.map(ask, last, [chat(0)] * 12))
        assert [*answers, stranger.result()] == [200] * 13
        # Alone: it has come and gone, so it is a stranger now.
        assert ask(last[0], chat(0)) == 200
    finally:
        server.terminate()
        server.wait(60)
    rows = rows_in(began)
    assert sorted(rows)[:12] == list(range(48, 60))
    assert rows.index(60) < 13  # strangers are numbered behind the plan
    planned = [row for row in rows if row < 60]
    assert planned == sorted(planned)


def test_asyncllm_follows_the_plan_by_prompts(
    model: Path, made: Plan, plan_file: Path, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    prompts = made.table.column("prompt_token_ids").to_pylist()
    arguments = {
        "model": str(model),
        "load_format": "dummy",
        "enforce_eager": True,
        "block_size": 32,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "gpu_memory_utilization": 0.1,
        "num_gpu_blocks_override": 49,
        "scheduler_cls": SCHEDULER,
        "additional_config": {"blendplan": str(plan_file), "blendplan_wait_s": 60},
    }
    asked = json.dumps({"arguments": arguments, "prompts": prompts[::-1]})
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, str(script), asked],
        env=environment(began),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.dumps([4] * 60) in done.stdout.splitlines()
    assert rows_in(began) == list(range(60))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the scheduler follows a plan and was given none"),
        ({"blendplan": "no/such.arrow"}, "cannot read plan no/such.arrow"),
        ({"blendplan": "p", "blendplan_wait": 1}, "did you mean 'blendplan_wait_s'"),
        ({"blendplan": "p", "blendplan_wait_s": "x"}, 'blendplan_wait_s "x"; give seconds'),
    ],
)
def test_what_is_wrong_with_the_plan_is_one_line(
    vllm: None, config: dict[str, Any], message: str
) -> None:
    from blendplan.engines.link import admission_of
    from blendplan.engines.options import SchedulerOptions
    from blendplan.errors import BlendplanError
    from blendplan.hardware.engine_limits import EngineLimits

    with pytest.raises(BlendplanError, match=message):
        admission_of(SchedulerOptions.of(config), EngineLimits(1536))
