"""What engines' servers refuse, foretold: against what the real servers did with every kind."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendplan.engines.screening.bodies import CHAT, COMPLETION, Body, body_of, shape
from blendplan.engines.screening.judging import Judge
from blendplan.engines.screening.screen import Screened, counted, screen
from blendplan.engines.screening.server import Server, server_of
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from tests.engines.conftest import need
from tests.engines.request_kinds import kinds
from tests.engines.tiny import tiny_tokenizer

RECORDED = Path(__file__).parents[1] / "data" / "refusals"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "vllm": {"max_model_len": 256},
    "sglang": {"context_length": 256, "grammar_backend": "none"},
}
# Kinds that a server refuses for what a table cannot tell: a grammar that no compiler takes,
GRAMMARS = ("format_schema_bad", "structured_regex_bad", "structured_grammar_bad")
# a name that it does not serve (a remark, since a flag changes it), and prompts over the context,
# which are found by their lengths.
ELSEWHERE = {
    "vllm": ("other_model", "adapter_model", "over_context", "at_context"),
    "sglang": ("over_context", "over_context_truncated", "max_tokens_context"),
}
# A JSON schema that is none, which SGLang checks with another package.
SCHEMAS = ("tools_bad_schema",)
# What was asked after the request that ends SGLang's scheduler has no recording.
UNRECORDED = {
    *("prompt_ids_negative", "prompt_ids_float", "messages_too", "over_context", "at_context"),
    *("below_context", "near_context", "over_context_truncated", "logprob_token_ids"),
    *("tools_ignored", "default_cap"),
}


def server(engine: str) -> Server:
    return Server(256, 16, 4096, False, ARGUMENTS[engine])


@cache
def recorded(engine: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((RECORDED / f"{engine}.json").read_text())
    return found["kinds"]


def disagreements(engine: str, *, models: bool, model: str = "") -> list[str]:
    """Kinds that the server refuses and we do not, or the other way round."""
    found = []
    with Judge(engine, server(engine), model, models=models) as judge:
        for name, (url, body) in kinds().items():
            told = recorded(engine).get(name)
            if told is None:
                continue
            refuses = told["status"] >= 400 or told.get("streams", False)
            verdict = judge(body_of({"url": url, "body": body}, has_token_ids=False))
            if verdict.refuses != refuses and name.split()[1] not in ELSEWHERE[engine]:
                found.append(name)
        assert judge.remark == ""
    return found


def test_every_kind_is_recorded() -> None:
    assert sorted(recorded("vllm")) == sorted(kinds())
    missing = kinds().keys() - recorded("sglang").keys()
    assert missing == {f"completion {name}" for name in UNRECORDED}


def test_the_table_of_vllm_agrees_with_its_server() -> None:
    left = disagreements("vllm", models=False)
    assert {name.split()[1] for name in left} <= set(GRAMMARS)


def test_the_table_of_sglang_agrees_with_its_server() -> None:
    left = disagreements("sglang", models=False)
    assert {name.split()[1] for name in left} <= {*GRAMMARS, *SCHEMAS}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_models_of_an_engine_agree_with_its_server(
    engine: str, tiny_model: Path, tmp_path: Path
) -> None:
    need(engine)
    model = tiny_tokenizer(tiny_model, tmp_path / "model")
    left = disagreements(engine, models=True, model=str(model))
    assert {name.split()[1] for name in left} <= set(SCHEMAS)


def screened(tmp_path: Path, lines: list[dict[str, Any]], engine: str = "vllm") -> Screened:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return screen(read_requests(path), engine, server(engine), models=False)


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "A river?"}], **fields}


def test_refusals_are_counted_by_reason_with_their_places(tmp_path: Path) -> None:
    lines = [chat(temperature=value) for value in (0, 3, 5, -1, 4, 9)]
    lines += [chat(tools=[{"type": "function", "function": {"name": "f"}}]), chat(label="x")]
    found = screened(tmp_path, lines)
    assert [refusal.row for refusal in found.refusals] == [1, 2, 3, 4, 5, 6]
    assert {refusal.status for refusal in found.refusals} == {400}
    assert counted(found.requests, found.refusals) == (
        '5 (lines 2, 3, 4, ...): "temperature" is 3, at most 2 is taken; 1 (line 7): "tools" '
        'without "tool_choice": "none" need enable_auto_tool_choice=true and a tool_call_parser'
    )
    assert found.checked_by == "the table of vLLM 0.32"


def test_unknown_fields_are_named_once_and_refuse_nothing(tmp_path: Path) -> None:
    lines = [chat(label=str(row), extra_body={"a": row}) for row in range(5)]
    lines += [chat(max_new_tokens=5)]
    found = screened(tmp_path, lines)
    assert found.refusals == []
    assert found.remarks == [
        "'label' (5), 'extra_body' (5), 'max_new_tokens' (1) are no parameters of vLLM: passed on, "
        "ignored there; 'max_new_tokens' is 'max_tokens' there"
    ]


def test_caps_are_those_of_the_server(tmp_path: Path) -> None:
    lines = [
        chat(max_tokens=9, max_completion_tokens=4),
        chat(),
        {"prompt": "A river?", "max_tokens": 9, "max_completion_tokens": 4},
        {"prompt": "A river?"},
        {"prompt": "A river?", "output_tokens": 40},
    ]
    found = screened(tmp_path, lines)
    assert found.requests.max_tokens.tolist() == [4, -1, 9, 16, -1]
    assert found.remarks[-1] == "1 completion states no max_tokens: vLLM stops after 16 tokens"


def test_token_ids_without_a_body_are_completions() -> None:
    requests = requests_from_lists([[1, 2], [3]], output_tokens=[None, 40])
    found = screen(requests, "vllm", server("vllm"), models=False)
    assert found.refusals == []
    assert found.requests.max_tokens.tolist() == [16, -1]


def test_sglang_refuses_a_cap_beyond_the_context_where_vllm_cuts_it(tmp_path: Path) -> None:
    line = {"prompt_token_ids": [5] * 250, "max_tokens": 100}
    assert screened(tmp_path, [line]).refusals == []
    (refusal,) = screened(tmp_path, [line], "sglang").refusals
    assert refusal.code == "context_length_exceeded"
    assert refusal.message == (
        "prompt of 250 tokens and max_tokens 100 together are more than the context of 256"
    )


def test_a_model_of_another_name_is_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    lines = [chat(model="mine"), chat(model="theirs"), chat()]
    path.write_text("\n".join(map(json.dumps, lines)))
    arguments = {"served_model_name": "mine", "lora_modules": ["poet=/adapters/poet"]}
    known, names = server_of("", 256, 16, 4096, arguments)
    assert names == ["mine", "poet"]
    found = screen(read_requests(path), "vllm", known, names=names, models=False)
    assert found.refusals == []
    assert found.remarks[0].startswith("requests ask for the model 'theirs' (1): vLLM must serve")


def test_arguments_of_the_engine_change_what_is_refused() -> None:
    body = Body(CHAT, chat(tools=[{"type": "function", "function": {"name": "f"}}]))
    arguments = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
    for given, refuses in (({}, True), (arguments, False)):
        with Judge("vllm", Server(256, 16, 4096, arguments=given), "", models=False) as judge:
            assert judge(body).refuses is refuses


@pytest.mark.parametrize("url", [CHAT, COMPLETION])
def test_bodies_that_differ_in_texts_only_are_of_one_shape(url: str) -> None:
    texts = ("A river?", "Another, and a longer one")
    shapes = {
        shape(
            body_of(
                {
                    "custom_id": text,
                    "url": f"https://somewhere{url}",
                    "body": chat(prompt=text, user=text, seed=len(text))
                    | {"messages": [{"role": "user", "content": text, "name": text}]},
                },
                has_token_ids=False,
            )
        )[0]
        for text in texts
    }
    assert len(shapes) == 1
    assert shapes.pop().startswith(url)


def test_a_plain_line_keeps_what_is_for_the_server_only() -> None:
    body = body_of({"id": "a", "output_tokens": 5, "top_k": 1}, has_token_ids=True)
    assert body.url == COMPLETION
    assert body.fields.keys() == {"prompt", "top_k"}
    assert np.all(np.array(body.fields["prompt"]) >= 0)
