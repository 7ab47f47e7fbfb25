"""What people bring: other endpoints, kinds of files and names, and what is said of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests
from blendplan.requests.record import stated_id

HI = [{"role": "user", "content": "hi"}]


def read(folder: Path, *lines: dict[str, Any], **options: Any) -> Requests:
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_requests(path, **options)


def batch(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"{url} {len(body)}", "method": "POST", "url": url, "body": body}


def texts(requests: Requests) -> list[str]:
    prompts = (requests.prompt(row) for row in range(len(requests)))
    return [tokens.astype("<i4").tobytes().replace(b"\0", b"").decode() for tokens in prompts]


def test_addresses_of_any_form(tmp_path: Path) -> None:
    requests = read(
        tmp_path,
        batch("/openai/deployments/d/chat/completions?api-version=1", messages=HI),
        batch("https://example.org/v1/chat/completions/", messages=HI, n=1),
        batch("http://example.org:8000/v1/completions", prompt="hi"),
    )
    assert requests.max_tokens.tolist() == [-1, -1, 16]  # as servers cap completions
    assert requests.remarks == ()


def test_prompts_without_output(tmp_path: Path) -> None:
    requests = read(
        tmp_path,
        batch("/v1/embeddings", input="north"),
        batch("/v1/embeddings", input=["north", "south"], n=None),
        batch("/v1/embeddings", input=[5, 6], dimensions=8, user="u"),
        batch("/v1/embeddings", input=[[5, 6], [7]], user="u", n=1, model="m"),
        batch("/v1/score", text_1="north", text_2=["east", "west"]),
        batch("/v1/rerank", query="north", documents=["up", "down"], top_n=1),
        {"prompt": "hi", "max_tokens": 0},
        {"prompt": "hi", "max_tokens": 9},
    )
    assert requests.output_tokens.tolist() == [-1] * 8  # nothing that an engine is asked for
    assert requests.max_tokens.tolist() == [1] * 7 + [9]
    assert texts(requests)[4:6] == ["northeastnorthwest", "northupnorthdown"]
    assert requests.prompt(3).tolist() == [5, 6, 7]
    said = "\n".join(requests.remarks)
    assert "6 requests for embeddings, scores or rankings" in said
    assert "3 requests with several texts" in said
    assert '1 request with "max_tokens" 0' in said


def test_responses(tmp_path: Path) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "which way"}]},
        {"type": "reasoning", "content": [{"text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": "compass", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "0"},
    ]
    requests = read(
        tmp_path,
        batch("/v1/responses", input="hi", instructions="Be brief", max_output_tokens=7),
        batch("/v1/responses", input=items),
    )
    assert requests.max_tokens.tolist() == [7, -1]
    first, second = texts(requests)
    assert first.index("Be brief") < first.index("hi")
    assert second.index("which way") < second.index("compass") < second.index("<|tool|>")
    with pytest.raises(BlendplanError, match=r"no item of type .web_search_call."):
        read(tmp_path, batch("/v1/responses", input=[{"type": "web_search_call"}]))


def test_lists_of_one_prompt(tmp_path: Path) -> None:
    requests = read(tmp_path, {"prompt": ["only"]}, {"prompt": [[5, 6]]}, {"prompt": [5]})
    assert texts(requests)[0] == "only"
    assert requests.prompt(1).tolist() == [5, 6]
    with pytest.raises(BlendplanError, match="holds 2 prompts; write one line for each"):
        read(tmp_path, {"prompt": [[5], [6]]})


def test_fields_are_kept_and_named_once(tmp_path: Path) -> None:
    lines = [{"prompt": "a", "label": "x", "max_new_tokens": 5, "seed": 1} for _ in range(300)]
    requests = read(tmp_path, *lines, {**batch("/v1/completions", prompt="b"), "tag": 1})
    assert requests.remarks == (
        'kept and passed on, though no engine knows these fields: "label", "tag"',
        'engines pass over the field "max_new_tokens"; write "max_tokens"',
    )
    assert requests.bodies is not None
    assert json.loads(requests.bodies[0].as_py())["label"] == "x"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_json_arrays(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "r.json"
    entries = [batch("/v1/chat/completions", messages=HI), {"id": "ü", "prompt": "ho"}]
    path.write_bytes(pack(json.dumps(entries, indent=1).encode()))
    requests = read_requests(path)
    assert requests.ids.to_pylist() == [entries[0]["custom_id"], "ü"]
    assert requests.source_row.tolist() == [0, 1]
    path.write_text('[{"prompt": "a"}, {"prompt": 5}]')
    with pytest.raises(BlendplanError, match='entry 2: "prompt" is 5'):
        read_requests(path)
    path.write_text('[{"prompt": "a"}, {"prompt"')
    with pytest.raises(BlendplanError, match=r"begins as a JSON array but is none .* at line 1"):
        read_requests(path)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('id,prompt,max_tokens,kind\n7,"hi, ""you""\nthere",5,x\nb,8,,y\n')
    requests = read_requests(path)
    assert texts(requests) == ['hi, "you"\nthere', "8"]
    assert requests.ids.to_pylist() == ["7", "b"]
    assert requests.max_tokens.tolist() == [5, -1]
    assert requests.remarks[0].endswith('"kind"')
    path.rename(tmp_path / "r.tsv").write_text("question\tn\nwhy?\t2\n")
    requests = read_requests(tmp_path / "r.tsv", prompt_column="question")
    assert texts(requests) == ["why?"]
    with pytest.raises(BlendplanError, match=r"no column .*, only question, n; --prompt-column"):
        read_requests(tmp_path / "r.tsv")
    (tmp_path / "r.tsv").write_text("a\tb\n1\t2\t3\n")
    with pytest.raises(BlendplanError, match="cannot be read"):
        read_requests(tmp_path / "r.tsv")


def test_json_text_in_cells(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    chat = batch("/v1/chat/completions", messages=HI, max_tokens=5)
    rows = [{**chat, "body": json.dumps(chat["body"])}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    requests = read_requests(path)
    assert requests.max_tokens.tolist() == [5]
    assert requests.bodies is not None
    assert json.loads(requests.bodies[0].as_py())["body"] == chat["body"]
    pq.write_table(pa.table({"messages": [json.dumps(HI)], "stop": ['["a"]']}), path)
    assert texts(read_requests(path)) == texts(requests)
    pq.write_table(pa.table({"messages": ["[no"]}), path)
    with pytest.raises(BlendplanError, match='"messages" is "'):
        read_requests(path)


@pytest.mark.parametrize(
    ("value", "expected"), [("why?", "prompt"), (HI, "messages"), ([5, 6], "prompt_token_ids")]
)
def test_prompts_by_another_name(tmp_path: Path, value: Any, expected: str) -> None:
    plain = read(tmp_path, {expected: value, "max_tokens": 5})
    named = read(tmp_path, {"query": value, "max_tokens": 5}, prompt_column="query")
    assert named.token_ids.tolist() == plain.token_ids.tolist()
    assert named.bodies is not None
    assert json.loads(named.bodies[0].as_py()) == {
        expected: value,
        "max_tokens": 5,
        "source_columns": {"query": value, "max_tokens": 5},
    }
    path = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_pylist([{"query": value}]), path)
    assert read_requests(path, prompt_column="query").token_ids.tolist() == plain.token_ids.tolist()


def test_prompts_by_a_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match=r'fields are "text"\); --prompt-column NAME'):
        read(tmp_path, {"text": "hi"})
    with pytest.raises(BlendplanError, match=r'line 2: no value in "text", .* it has "quest'):
        read(tmp_path, {"text": "hi"}, {"question": "what?"}, prompt_column="text")
    with pytest.raises(BlendplanError, match="prompt_column is 5"):
        read(tmp_path, {"text": "hi"}, prompt_column=5)
    pq.write_table(pa.table({"text": ["a"], "prompt": ["b"]}), tmp_path / "r.parquet")
    assert texts(read_requests(tmp_path / "r.parquet", prompt_column="text")) == ["a"]
    with pytest.raises(BlendplanError, match='no column "query", only text, prompt'):
        read_requests(tmp_path / "r.parquet", prompt_column="query")


def test_numbers_as_ids_can_be_given_back() -> None:
    assert stated_id("7", b'{"custom_id": 7, "body": {}}') == 7
    assert stated_id("7", b'{"custom_id": "7", "body": {}}') == "7"
    assert stated_id("-7", b'{"id": -7, "prompt": "a"}') == -7
    assert stated_id("2", b'{"prompt": "a"}') == "2"
    assert stated_id("7", None) == "7"
    assert stated_id("7", b"{") == "7"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "slow.jsonl"])
def test_lengths_above_their_caps_are_told(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt_token_ids": [1, k], "max_tokens": 3, "output_tokens": k} for k in range(2, 6)
    ]
    path = tmp_path / f"r.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        rows[0] |= {"id": 7} if suffix == "slow.jsonl" else {}  # an id that is read line by line
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    requests = read_requests(path)
    assert requests.output_tokens.tolist() == [2, 3, 4, 5]
    assert requests.remarks == (
        '2 requests with "output_tokens" above "max_tokens"; planned and run with '
        '"output_tokens", the known length',
    )
