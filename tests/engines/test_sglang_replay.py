"""Replaying plans on the real SGLang."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineRequest, Launch
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.replaying.run import replay
from blendplan.simulator.cuda_graphs import GraphSizes
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
    "disable_overlap_schedule": True,
    "mem_fraction_static": 0.3,
    "max_total_tokens": 1536,
    "context_length": 1024,
    "page_size": 1,
    "random_seed": 1,
}


def test_sglang_answers_every_request(sglang: None, tiny_model: Path, tmp_path: Path) -> None:
    job = write_requests_file(tmp_path / "requests.jsonl", 60)
    made = small_plan(job, policy="blend", kv_tokens=1536)
    output, told = tmp_path / "results.jsonl", list[str]()
    replayed = replay(
        made,
        "sglang",
        output,
        model=str(tiny_model),
        engine_args=ARGUMENTS,
        remark=told.append,
    )
    assert told == []
    assert_each_once(made, output)
    assert replayed.tally.failed == 0
    assert replayed.tally.output_tokens == made.metadata["predicted"]["output_tokens"]
    assert replayed.tally.cached_tokens > 0
    for line in lines_of(output):
        body = line["response"]["body"]
        [choice] = body["choices"]
        assert len(choice["token_ids"]) == body["usage"]["completion_tokens"]
        assert choice["finish_reason"] == "length"


def test_text_and_chat_go_through_the_model_s_tokenizer(
    sglang: None, tiny_model: Path, tmp_path: Path
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
        {"id": "long", "prompt": "ten " * 2000, **asked},
    ]
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    made = small_plan(job, policy="fcfs", kv_tokens=8192)
    told: list[str] = []
    replay(
        made,
        "sglang",
        tmp_path / "results.jsonl",
        model=str(model),
        engine_args=ARGUMENTS,
        remark=told.append,
    )
    assert any("KV cache of 8,192 tokens, the engine has 1,536" in line for line in told)
    lines = {line["custom_id"]: line for line in lines_of(tmp_path / "results.jsonl")}
    assert list(lines) == [body.get("id", body.get("custom_id")) for body in bodies]
    answer = lines["chat"]["response"]["body"]
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] == 5  # <user> one two three <assistant>
    assert lines["text"]["response"]["body"]["choices"][0]["text"]
    assert lines["text"]["response"]["body"]["usage"]["completion_tokens"] == 5
    assert len(lines["two"]["response"]["body"]["choices"]) == 2
    logprobs = lines["probable"]["response"]["body"]["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["top_logprobs"]) == 5
    assert lines["odd"]["error"]["code"] == "unsupported_parameter"
    assert lines["hot"]["error"]["code"] == "invalid_request"
    assert lines["long"]["error"]["code"] == "invalid_request"


def test_requests_are_admitted_in_the_order_of_submission(sglang: None, tiny_model: Path) -> None:
    from blendplan.engines.sglang.adapter import SglangEngine

    launch = Launch(str(tiny_model), EngineLimits(1536, 1, 256), arguments=ARGUMENTS)
    engine = EngineProcess(partial(SglangEngine, launch))
    order = [5, 2, 9, 0, 7, 1, 8, 3, 6, 4]
    try:
        assert (engine.capacity.limits.kv_tokens, engine.capacity.limits.max_num_seqs) == (1536, 1)
        # One at a time: what is admitted first finishes first.
        report = engine.step([EngineRequest(row, [9 + row] * 20, output_tokens=4) for row in order])
        finished = [done.row for done in report.finished]
        while len(finished) < len(order):
            finished += [done.row for done in engine.step([]).finished]
        assert finished == order
        for _ in range(50):  # the load is published after the batch
            report = engine.step([])
            if (report.running, report.waiting) == (0, 0):
                break
        assert report.free_kv_tokens == 1536
    finally:
        engine.close()


def test_graph_sizes_and_spatial_sharing_reach_sglang(sglang: None, tiny_model: Path) -> None:
    from blendplan.engines.sglang.arguments import engine_arguments

    class Known:
        def __init__(self, enable_mixed_chunk: bool, chunked_prefill_size: int) -> None: ...

    graphs = {"sglang": GraphSizes(mixed=[16, 64], decode=[1, 5, 8])}
    launch = Launch(str(tiny_model), LIMITS, graphs=graphs)
    arguments = engine_arguments(launch, Known)
    assert arguments["cuda_graph_bs_decode"] == [1, 5, 8]
    assert arguments["cuda_graph_bs_prefill"] == [16, 64]
    assert arguments["enable_mixed_chunk"] is True
    spatial = Launch(str(tiny_model), LIMITS, graphs=graphs, pdmux=True)
    arguments = engine_arguments(spatial, Known)
    assert arguments["cuda_graph_bs_decode"] == [1, 5, 8]
    assert "cuda_graph_bs_prefill" not in arguments
    assert arguments["enable_pdmux"] is True
    assert arguments["chunked_prefill_size"] == -1
    assert arguments["disable_overlap_schedule"] is True
    assert arguments["enable_mixed_chunk"] is False
    against = Launch(str(tiny_model), LIMITS, pdmux=True, arguments={"chunked_prefill_size": 512})
    with pytest.raises(BlendplanError, match="needs chunked_prefill_size=-1, not 512"):
        engine_arguments(against, Known)
    unknown = Launch(str(tiny_model), LIMITS, arguments={"chunk_prefill_size": 512})
    with pytest.raises(BlendplanError, match="did you mean 'chunked_prefill_size'"):
        engine_arguments(unknown, Known)
