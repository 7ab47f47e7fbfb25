"""Chat templates get what the server of an engine gives them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from blendplan.errors import BlendplanError
from blendplan.requests.fingerprint import tokenizer_fingerprint
from blendplan.requests.read import read_requests
from tests.support.byte_model import NAMED, PARTS, TEXTS, byte_model, text_of

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"parameters": {}, "name": "bell", "other": 1}}
CALLS = [{"id": "c", "type": "function", "function": {"name": "bell", "arguments": '{"b":1}'}}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def prompt(model: Path, url: str = "/v1/chat/completions", **body: Any) -> str:
    path = model.parent / "r.jsonl"
    path.write_text(json.dumps({"custom_id": "a", "url": url, "body": body}))
    return text_of(read_requests(path, model_dir=model).prompt(0).tolist(), model)


def turns(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content} for content in contents]


def test_contents_as_texts(folder: Path) -> None:
    model = byte_model(folder, "{% for m in messages %}({{ m.content }}){% endfor %}")
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert prompt(model, messages=turns("x", parts, None, [])) == "(x)(a\nb)()()"


@pytest.mark.parametrize(
    "loop",
    [
        "{% for p in m.content %}",
        "{% for p in m['content'][0:] %}",
        "{% for p in m.content | reverse %}",
        "{% set content = m.content %}{% for p in content %}",
    ],
)
def test_contents_as_parts(folder: Path, loop: str) -> None:
    template = "{% for m in messages %}" + loop + "<{{ p.text }}>{% endfor %}{% endfor %}"
    model = byte_model(folder, template)
    expected = prompt(model, messages=turns([{"type": "text", "text": "x"}] * 2))
    assert "<x>" in expected
    assert prompt(model, messages=turns("x")) == "<x>"  # a text is a list of one part


def test_parts_of_a_macro(folder: Path) -> None:
    model = byte_model(folder, PARTS)
    today = datetime.now().strftime("%d %b %Y")
    said = prompt(model, messages=[*turns("x"), {"role": "assistant", "tool_calls": CALLS}])
    assert said == (
        f"{today}<|im_start|>user\n[x]<|im_end|>\n<|im_start|>assistant\nbell b=1<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_have_all_fields_that_the_server_knows(folder: Path) -> None:
    said = prompt(byte_model(folder, TEXTS), messages=[USER], tools=[TOOL])
    written: dict[str, Any] = {"name": "bell", "description": None, "parameters": {}}
    assert json.dumps({"type": "function", "function": written}) in said


def test_template_for_tools(folder: Path) -> None:
    model = byte_model(folder, NAMED)
    assert prompt(model, messages=[USER]) == "[user]hi"
    assert prompt(model, messages=[USER], tools=[TOOL]) == "1 tools[user]hi"
    assert prompt(model, messages=[USER], chat_template="tool_use", tools=[TOOL]).startswith("1")
    folder.joinpath("tokenizer_config.json").write_text(json.dumps({"chat_template": NAMED[1:]}))
    with pytest.raises(
        BlendplanError, match='no chat template is the default one, only "tool_use"'
    ):
        prompt(model, messages=[USER])


def test_developer(folder: Path) -> None:
    developer = {"role": "developer", "content": "short"}
    assert prompt(byte_model(folder, NAMED), messages=[developer, USER]).startswith("![developer]")
    model = byte_model(
        folder.with_name("other"),
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    )
    assert prompt(model, messages=[developer, USER]) == "[system]short[user]hi"
    system = {"role": "system", "content": "kind"}
    assert prompt(model, messages=[system, USER, developer]) == "[system]kind\n\nshort[user]hi"


def test_open_last_turn(folder: Path) -> None:
    model = byte_model(folder, TEXTS)
    messages = [USER, {"role": "assistant", "content": "It "}]
    said = prompt(
        model, messages=messages, add_generation_prompt=False, continue_final_message=True
    )
    assert said.endswith("<|im_start|>assistantIt ")
    with pytest.raises(BlendplanError, match='"continue_final_message" with "add_generation_pro'):
        prompt(model, messages=messages, continue_final_message=True)
    item = {"role": "assistant", "content": "It", "status": "incomplete"}
    said = prompt(model, "/v1/responses", input=[{"role": "user", "content": "x"}, item])
    assert said.endswith("assistantIt")
    trimming = byte_model(folder.with_name("trim"), NAMED)
    open_turn: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    assert prompt(trimming, messages=messages, **open_turn) == "[user]hi[assistant]It"
    forgetful = byte_model(folder.with_name("none"), "{{ messages[0].content }}")
    with pytest.raises(BlendplanError, match="leaves out the last message"):
        prompt(forgetful, messages=messages, **open_turn)


def test_thinking(folder: Path) -> None:
    model = byte_model(folder, TEXTS)
    quiet = {"enable_thinking": False}
    assert prompt(model, messages=[USER], chat_template_kwargs=quiet).endswith("(quiet)")
    assert prompt(model, messages=[USER], reasoning_effort="none").endswith("(quiet)(none)")
    effort = {"reasoning": {"effort": "low"}}
    assert prompt(model, "/v1/responses", input="x", **effort).endswith("(low)")


def test_special_tokens_and_cuts(folder: Path) -> None:
    model = byte_model(folder, TEXTS)
    path = folder.parent / "r.jsonl"
    bodies = [
        {"prompt": "<s>hi"},
        {"prompt": "<s>hi", "add_special_tokens": False},
        {"messages": [USER], "add_special_tokens": True},
        {"prompt": "north", "truncate_prompt_tokens": 2},
        {"prompt": "north", "truncate_prompt_tokens": 2, "truncation_side": "right"},
    ]
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    requests = read_requests(path, model_dir=model)
    said = [text_of(requests.prompt(row).tolist(), model) for row in range(5)]
    assert said[:2] == ["<s><s>hi", "<s>hi"]
    assert said[2].startswith("<s><s>")
    assert said[3:] == ["<s>h", "<s>n"]
    assert "2 requests with the beginning-of-text token twice" in requests.remarks[0]


def test_fingerprint(folder: Path) -> None:
    model = byte_model(folder, TEXTS)
    found = tokenizer_fingerprint(model)
    assert found is not None
    assert found.vocabulary_size == 260
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"padding": None, "version": "2"}, sort_keys=True))
    assert tokenizer_fingerprint(model) == found
    (folder / "chat_template.jinja").write_text("other")
    other = tokenizer_fingerprint(model)
    assert other is not None
    assert other.vocabulary_sha256 == found.vocabulary_sha256
    assert other.chat_template_sha256 != found.chat_template_sha256
    whole["model"]["vocab"]["new"] = 260
    path.write_text(json.dumps(whole))
    changed = tokenizer_fingerprint(model)
    assert changed is not None
    assert changed.vocabulary_sha256 != found.vocabulary_sha256
    assert changed.vocabulary_size == 261
    path.unlink()
    assert tokenizer_fingerprint(model) is None
