"""Replaying plans on the simulated engine: results, order, agreement with the plan."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.replaying.run import replay
from blendplan.requests.in_memory import requests_from_lists
from tests.replaying.replay_jobs import (
    assert_each_once,
    ids_of,
    lines_of,
    small_plan,
    surprised,
    write_requests_file,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small request file."""
    return write_requests_file(tmp_path_factory.mktemp("job") / "requests.jsonl")


@pytest.fixture(scope="module")
def made(job: Path) -> Plan:
    """Its plan."""
    return small_plan(job, policy="dfs")


@pytest.mark.parametrize("policy", ["fcfs", "random", "dfs", "blendserve", "blend"])
def test_the_live_policy_does_what_the_simulation_did(job: Path, policy: str) -> None:
    made = small_plan(job, policy=policy, kv_tokens=100_000)
    replayed = replay(made)
    planned = made.metadata["predicted"]
    assert replayed.tally.steps == planned["steps"]
    assert replayed.tally.elapsed_s == pytest.approx(planned["makespan_s"], rel=1e-9)
    assert replayed.tally.preemptions == planned["preemptions"] == 0
    shared = made.metadata["prefix_sharing"]["planned"]
    assert replayed.tally.cached_share == pytest.approx(shared)


@pytest.mark.parametrize("policy", ["dfs", "blendserve", "blend"])
@pytest.mark.parametrize("seed", range(4))
def test_every_request_is_answered_under_pressure(tmp_path: Path, policy: str, seed: int) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 60, seed)
    made = small_plan(job, policy=policy, kv_tokens=24 * 16)
    replayed = replay(made, output=tmp_path / "results.jsonl")
    assert replayed.tally.finished == 60
    assert_each_once(made, tmp_path / "results.jsonl")


def test_results_come_in_input_order(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    replayed = replay(made, output=output)
    assert_each_once(made, output)
    assert not replayed.interrupted
    # The plan's own order is another one, so the order of the results is an achievement.
    assert made.table.column("request_id").to_pylist() != ids_of(made)


def test_results_stream_in_the_order_of_finishing(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    seen = []

    def watch(tally: Any) -> None:
        seen.append((tally.finished, len(lines_of(output))))

    replay(made, output=output, order="finish", progress=watch)
    assert all(finished == written for finished, written in seen)
    assert_each_once(made, output, in_order=False)


def test_lines_have_the_shape_of_the_request(tmp_path: Path) -> None:
    lines = [
        {
            "custom_id": "a",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": "hello there"}],
                "max_tokens": 3,
            },
        },
        {"prompt": "once upon a time", "output_tokens": 5},
    ]
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = small_plan(job, policy="fcfs")
    replay(made, output=tmp_path / "results.jsonl")
    chat, text = lines_of(tmp_path / "results.jsonl")
    assert set(chat) == {"id", "custom_id", "response", "error"}
    assert chat["response"]["status_code"] == 200
    assert chat["response"]["request_id"]
    body = chat["response"]["body"]
    assert (body["object"], body["model"]) == ("chat.completion", "llama-3.1-8b")
    assert body["choices"][0]["message"]["role"] == "assistant"
    body = text["response"]["body"]
    assert (body["object"], body["model"]) == ("text_completion", "llama-3.1-8b")
    assert body["choices"][0]["text"] == ""
    assert body["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 5,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_wrong_predictions_change_nothing_but_the_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    actual = rng.integers(1, 300, 60).tolist()
    requests = requests_from_lists([rng.integers(3, 4000, 20).tolist() for _ in actual])
    for policy in ("blendserve", "blend"):
        made = small_plan(requests, policy=policy, kv_tokens=60 * 16)
        assert len(set(made.column("output_tokens_mean"))) == 1
        output = tmp_path / f"{policy}.jsonl"
        replay(surprised(made, actual), output=output)
        assert_each_once(made, output)
        usages = [line["response"]["body"]["usage"] for line in lines_of(output)]
        assert [usage["completion_tokens"] for usage in usages] == actual


def test_prompts_that_the_plan_estimated_share_as_planned(tmp_path: Path) -> None:
    job = tmp_path / "requests.jsonl"
    system = "You are a patient teacher of geometry. " * 20
    lines = [{"prompt": f"{system}{row}", "output_tokens": 4} for row in range(12)]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = small_plan(job, policy="dfs", kv_tokens=100_000)
    assert made.metadata["lengths"]["estimated_prompts"]
    assert replay(made).tally.cached_share == pytest.approx(
        made.metadata["prefix_sharing"]["planned"]
    )


def test_answers_of_a_sample_are_not_asked_for_again(made: Plan, tmp_path: Path) -> None:
    first = tmp_path / "sample.jsonl"
    replay(made, output=first)
    some = [line for line in lines_of(first) if int(line["custom_id"].split("-")[1]) % 3 == 0]
    for line in some:
        line["id"] = "batch_req_7"  # another file, other rows
        line["response"]["body"]["choices"][0]["text"] = "sampled"
    failed = {**some.pop(), "response": None, "error": {"code": "x", "message": "y"}}
    refused = {**some.pop(), "error": None}
    refused["response"] = {"status_code": 400, "body": {"error": {"message": "bad"}}}
    foreign = {**some[0], "custom_id": "somebody else's"}
    lines = [*some, failed, refused, foreign]
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))

    output = tmp_path / "results.jsonl"
    replayed = replay(made, output=output, already=first)
    assert replayed.tally.already_done == len(some)
    assert replayed.tally.finished == len(made) - len(some)
    assert_each_once(made, output)
    texts = [line["response"]["body"]["choices"][0]["text"] for line in lines_of(output)]
    assert texts.count("sampled") == len(some)


def test_a_request_longer_than_the_cache_is_an_error_line(tmp_path: Path) -> None:
    requests = requests_from_lists([[5] * 30, [6] * 30, [7] * 30], max_tokens=[4, 4, 4])
    made = small_plan(requests, policy="fcfs", kv_tokens=40 * 16)
    replayed = replay(surprised(made, [4, 900, 4]), output=tmp_path / "results.jsonl")
    assert (replayed.tally.finished, replayed.tally.failed) == (2, 1)
    assert_each_once(made, tmp_path / "results.jsonl")
    error = lines_of(tmp_path / "results.jsonl")[1]
    assert error["response"] == {"status_code": 400, "request_id": "req_1", "body": None}
    assert "longer than the KV cache" in error["error"]["error"]["message"]


def test_logs_tell_what_happened(made: Plan, tmp_path: Path) -> None:
    steps, requests = tmp_path / "steps.parquet", tmp_path / "requests.parquet"
    replayed = replay(made, step_log=steps, request_log=requests)
    log = pq.read_table(steps)
    assert log.num_rows == replayed.tally.steps
    assert sum(log["prefill_tokens"].to_pylist()) == made.metadata["predicted"]["prefill_tokens"]
    # Every token but the first of each answer comes out of a decode.
    decodes = replayed.tally.output_tokens - len(made)
    assert sum(log["decode_tokens"].to_pylist()) == decodes
    assert sum(log["time_s"].to_pylist()) == pytest.approx(replayed.tally.elapsed_s)
    log = pq.read_table(requests)
    assert sorted(log["request_id"].to_pylist()) == sorted(ids_of(made))
    finished, submitted = log["finished_s"].to_pylist(), log["submitted_s"].to_pylist()
    assert all(end > start for end, start in zip(finished, submitted, strict=True))
    assert max(finished) == pytest.approx(replayed.tally.elapsed_s)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "vlm"}, "unknown engine 'vlm'; did you mean 'vllm'?"),
        ({"pdmux": True}, "spatial sharing is SGLang's"),
        ({"resume": True}, "only a run with a results file can be resumed"),
        ({"engine_args": {"block_size": 16}}, "takes no engine arguments"),
    ],
)
def test_impossible_options_are_one_line(made: Plan, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BlendplanError, match=message.replace("?", r"\?")):
        replay(made, **options)


def test_a_model_of_one_s_own_must_be_named(made: Plan) -> None:
    own = Plan(made.table, made.metadata | {"model": "my-model"})
    with pytest.raises(BlendplanError, match="tell vllm with --model where it is"):
        replay(own, "vllm")


def test_results_are_never_overwritten(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    replay(made, output=output)
    before = output.read_bytes()
    with pytest.raises(BlendplanError, match="never overwritten"):
        replay(made, output=output)
    again = replay(made, output=output, resume=True)
    assert (again.tally.already_done, again.tally.finished) == (len(made), 0)
    assert output.read_bytes() == before


def test_results_of_another_plan_are_not_taken_for_complete(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    replay(made, output=output)
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(BlendplanError, match="lacks 1 requests of this plan"):
        replay(made, output=output, resume=True)
    output.write_bytes(b"".join([*lines, lines[0]]))
    with pytest.raises(BlendplanError, match="or there twice"):
        replay(made, output=output, resume=True)


def test_a_run_that_never_started_leaves_nothing(made: Plan, tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="simulated engine takes no engine arguments; plan"):
        replay(made, output=tmp_path / "results.jsonl", engine_args={"wrong": 1})
    assert list(tmp_path.iterdir()) == []
