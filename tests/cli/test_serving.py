"""``plan --engine``: what the engine's server would refuse, said before anything is planned."""

import json
from pathlib import Path
from typing import Any

import pytest

from blendplan.engines.screening import judging
from blendplan.planfile.plan import Plan
from tests.cli.cli_runs import answer, error_line, run

GPU = ("--gpu", "a100-80g", "--kv-tokens", "4096", "--policy", "fcfs")


@pytest.fixture(autouse=True)
def without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_installed", lambda package: None)


def chat(name: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "A river?"}], "max_tokens": 4} | fields
    return {"custom_id": name, "url": "/v1/chat/completions", "body": body}


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    lines = [
        chat("good"),
        chat("hot", temperature=3),
        chat("labelled", label="x"),
        {"custom_id": "long", "body": {"prompt": [5] * 70, "max_tokens": 4}},
        {"custom_id": "short", "body": {"prompt": [5] * 9}},
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"custom_id": "cut", "body": {"pr')
    return path


def test_planning_stops_at_what_the_engine_refuses(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(chat("good")) + "\n" + json.dumps(chat("hot", temperature=3)))
    result = run("plan", path, *GPU, "--engine", "vllm", "-o", tmp_path / "plan.arrow")
    assert result.exit_code == 1
    assert error_line(result).endswith(
        'the table of vLLM 0.32 refuses 1 of 2 requests: 1 (line 2): "temperature" is 3, at most '
        "2 is taken; --on-error skip leaves such requests out"
    )
    assert not (tmp_path / "plan.arrow").exists()
    assert run("plan", path, *GPU, "-o", tmp_path / "plan.arrow").exit_code == 0


def test_what_is_refused_is_left_out_and_said(requests: Path, tmp_path: Path) -> None:
    made = tmp_path / "plan.arrow"
    options = ("--engine", "vllm", "--on-error", "skip", "--max-model-len", "64", "-o", made)
    result = run("plan", requests, *GPU, *options)
    assert result.exit_code == 0, result.stderr
    said = result.stderr
    assert "'label' (1) is no parameter of vLLM: passed on, ignored there" in said
    assert 'refuses 1 of 5 requests: 1 (line 2): "temperature" is 3' in said
    assert "1 completion states no max_tokens: vLLM stops after 16 tokens" in said

    plan = Plan.read(made)
    plan.verify()
    assert plan.rejected.select(["source_row", "request_id", "code"]).to_pylist() == [
        {"source_row": 1, "request_id": "hot", "code": "invalid_field:temperature"},
        {"source_row": 3, "request_id": "long", "code": "context_length_exceeded"},
        {"source_row": 5, "request_id": "cut", "code": "invalid_request"},
    ]
    assert plan.rejected["message"][1].as_py() == "prompt of about 70 tokens, model takes 64"
    assert plan.metadata["serving"] == {
        "engine": "vllm",
        "arguments": {},
        "checked_by": "the table of vLLM 0.32",
    }
    rows = plan.table.select(["request_id", "max_tokens"]).to_pylist()
    caps = {row["request_id"]: row["max_tokens"] for row in rows}
    assert caps == {"good": 4, "labelled": 4, "short": 16}
    rejects = (tmp_path / "requests.jsonl.rejects.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["line"] for line in rejects) == [2, 4, 6]


def test_a_prompt_over_the_context_is_named_with_its_line(requests: Path, tmp_path: Path) -> None:
    requests.write_text("\n".join(requests.read_text().splitlines()[:5]))
    result = run("plan", requests, *GPU, "--max-model-len", "64", "-o", tmp_path / "plan.arrow")
    assert result.exit_code == 1
    assert "line 4 (id 'long'): prompt of about 70 tokens, model takes 64" in error_line(result)


def test_nothing_is_left_where_all_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(chat("hot", temperature=3)))
    options = ("--engine", "vllm", "--on-error", "skip", "-o", tmp_path / "plan.arrow")
    result = run("plan", path, *GPU, *options)
    assert result.exit_code == 1
    assert error_line(result).endswith("at most 2 is taken; none is left to plan")


def test_arguments_of_the_engine_are_heard(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    tool = {"type": "function", "function": {"name": "f"}}
    path.write_text(json.dumps(chat("tools", tools=[tool])))
    options = ("--engine", "vllm", "-o", tmp_path / "plan.arrow")
    refused = run("plan", path, *GPU, *options)
    assert "tool_call_parser" in error_line(refused)
    parser = ("--engine-arg", "tool_call_parser=hermes")
    auto = ("--engine-arg", "enable_auto_tool_choice=true")
    told = answer("plan", path, *GPU, *options, *parser, *auto)
    assert told["rejected"] == 0
    assert Plan.read(tmp_path / "plan.arrow").metadata["serving"]["arguments"] == {
        "tool_call_parser": "hermes",
        "enable_auto_tool_choice": True,
    }
    alone = run("plan", path, *GPU, *parser, "-o", tmp_path / "plan.arrow")
    assert alone.exit_code == 2
    assert "--engine-arg needs --engine" in alone.stderr
