"""Text to token ids: the built-in estimate, and a model's own tokenizer and chat template."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests
from blendplan.requests.record import read_record
from blendplan.requests.tokens import estimate_messages, estimate_tokens, render

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def slow_estimate(text: str) -> list[int]:
    data = text.encode()
    groups = [data[i : i + 4].ljust(4, b"\0") for i in range(0, len(data), 4)]
    return [int.from_bytes(group, "little", signed=True) for group in groups]


@settings(max_examples=80)
@given(texts=st.lists(TEXT, min_size=1, max_size=6), start=st.integers(0, 2))
def test_four_bytes_are_a_token(texts: list[str], start: int) -> None:
    column = pa.array(["cut off"] * start + texts, pa.large_string())[start:]
    token_ids, lengths = estimate_tokens(column)
    slow = [slow_estimate(text) for text in texts]
    assert token_ids.tolist() == [token for text in slow for token in text]
    assert lengths.tolist() == [len(text) for text in slow]
    assert token_ids.dtype == np.int32


@settings(max_examples=80)
@given(
    conversations=st.lists(
        st.lists(
            st.fixed_dictionaries({"role": TEXT.filter(bool), "content": TEXT}),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_columns_of_messages_read_as_rendered(conversations: list[list[dict[str, str]]]) -> None:
    token_ids, lengths = estimate_messages(pa.array(conversations))
    texts = [render(read_record({"messages": messages})) for messages in conversations]
    slow = [slow_estimate(text) for text in texts]
    assert token_ids.tolist() == [token for text in slow for token in text]
    assert lengths.tolist() == [len(text) for text in slow]


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n"
    "  {% generation %}\n"
    "{{ message.role }} says {{ message.content }} .\n"
    "  {% endgeneration %}\n"
    "{% if message.role == 'odd' %}{{ raise_exception('no odd roles') }}{% endif %}\n"
    "{% endfor %}\n"
    "{% if tools %}tools {{ tools[0].function.name }} {% endif %}\n"
    "{% if add_generation_prompt %}bot says {% endif %}\n"
    "{% if thinking is defined %}thinks {% endif %}"
)
WORDS = ["<s>", "[UNK]", "user", "system", "bot", "says", ".", "hello", "world", "tools", "thinks"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a word tokenizer that puts <s> in front, and no chat template."""
    folder = tmp_path / "model"
    folder.mkdir()
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_config(model: Path, **config: Any) -> None:
    (model / "tokenizer_config.json").write_text(json.dumps(config))


def read(model: Path, *lines: dict[str, Any], **options: Any) -> Requests:
    path = model.parent / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_requests(path, model_dir=model, **options)


def words(requests: Requests, row: int) -> str:
    return " ".join(WORDS[token] for token in requests.prompt(row))


CHAT = {"messages": [{"role": "user", "content": "hello world"}]}


def test_text_gets_special_tokens_and_is_never_cut(model: Path) -> None:
    long = "hello world " * 50_000
    requests = read(model, {"prompt": "hello world"}, {"prompt": long}, {"prompt_token_ids": [7]})
    assert words(requests, 0) == "<s> hello world"
    assert requests.prompt_tokens.tolist() == [3, 100_001, 1]
    assert not requests.estimated_tokens


@pytest.mark.parametrize("place", ["file", "config", "list of templates"])
def test_chat_template(model: Path, place: str) -> None:
    bos = {"content": "<s>", "lstrip": False}
    if place == "file":
        write_config(model, bos_token=bos, chat_template="never used")
        (model / "chat_template.jinja").write_text(TEMPLATE)
    elif place == "config":
        write_config(model, bos_token=bos, chat_template=TEMPLATE)
    else:
        others = {"name": "rag", "template": "no"}
        default = {"name": "default", "template": TEMPLATE}
        write_config(model, bos_token="<s>", chat_template=[others, default])
    asks = {
        **CHAT,
        "tools": [{"function": {"name": "é"}}],
        "chat_template_kwargs": {"thinking": True},
    }
    requests = read(model, CHAT, asks, {"prompt": "hello"}, {"prompt_token_ids": [7, 8]}, CHAT)
    said = "<s> user says hello world ."
    assert words(requests, 0) == f"{said} bot says"
    assert words(requests, 1) == f"{said} tools [UNK] bot says thinks"
    assert words(requests, 2) == "<s> hello"
    assert requests.prompt(3).tolist() == [7, 8]
    assert words(requests, 4) == words(requests, 0)
    assert not requests.estimated_tokens


def test_messages_without_template_are_estimates(model: Path) -> None:
    requests = read(model, CHAT)
    assert requests.estimated_tokens
    assert words(requests, 0) == "[UNK] hello [UNK] [UNK]"  # the frame is no vocabulary


def test_template_that_refuses(model: Path) -> None:
    write_config(model, bos_token="<s>", chat_template=TEMPLATE)
    odd = {"messages": [{"role": "odd", "content": "x"}]}
    with pytest.raises(BlendplanError, match=r"line 2: the chat template refuses .*no odd roles"):
        read(model, CHAT, odd)
    assert len(read(model, CHAT, odd, on_error="skip")) == 1


def test_template_in_a_sandbox(model: Path) -> None:
    write_config(model, chat_template="{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(BlendplanError, match="the chat template refuses"):
        read(model, CHAT)


def test_prompt_without_any_token(model: Path) -> None:
    write_config(model, chat_template="  ")
    with pytest.raises(BlendplanError, match="line 2: the tokenizer makes no token"):
        read(model, {"prompt": "hello"}, CHAT)
    requests = read(model, CHAT, {"prompt": "hello"}, CHAT, on_error="skip")
    assert requests.ids.to_pylist() == ["2"]
    assert words(requests, 0) == "<s> hello"


def test_folder_without_tokenizer_means_the_estimate(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    requests = read(folder, {"prompt": "12345"})
    assert requests.prompt(0).tolist() == slow_estimate("12345")
    assert requests.estimated_tokens


def test_damaged_folders(model: Path) -> None:
    config = model / "tokenizer_config.json"
    for content, expected in (
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"chat_template": 5}', "is not a text"),
        ('{"chat_template": "{% if %}"}', "bad chat template"),
    ):
        config.write_text(content)
        with pytest.raises(BlendplanError, match=expected):
            read(model, CHAT)
    config.write_bytes(b"\xff")
    with pytest.raises(BlendplanError, match="cannot be read"):
        read(model, CHAT)
    config.write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(BlendplanError, match=r"tokenizer\.json is not a tokenizer"):
        read(model, CHAT)


@pytest.mark.parametrize("package", ["tokenizers", "jinja2"])
def test_missing_package(model: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(model, chat_template="x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BlendplanError, match=r"pip install 'blendplan\[tokenizers\]'"):
        read(model, CHAT)
