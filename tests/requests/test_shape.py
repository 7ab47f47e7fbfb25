"""What rows and lines become: prompts by template, ids, and what they do not say themselves."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests

ROWS = [
    {"doc": 7, "text": "cat", "kind": "a", "temperature": 0.5, "max_tokens": None},
    {"doc": 3, "text": 'd"og\n', "kind": None, "temperature": None, "max_tokens": 9},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(requests: Requests) -> list[dict[str, Any]]:
    assert requests.bodies is not None
    return [json.loads(body) for body in requests.bodies.to_pylist()]


def stated(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def body_lines(path: Path, rows: list[dict[str, Any]], **shape: Any) -> list[dict[str, Any]]:
    return lines(read_requests(write(path, rows), **shape))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".arrow"])
def test_a_template_makes_requests_of_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"r{suffix}", ROWS)
    requests = read_requests(
        path,
        template="To French: {text} ({doc})",
        system="Be brief.",
        id_column="doc",
        max_tokens=50,
        parameters={"temperature": 0.1, "top_p": 0.9},
    )
    assert requests.ids.to_pylist() == ["7", "3"]
    assert requests.max_tokens.tolist() == [50, 9]
    made = [stated(line) for line in lines(requests)]
    assert [stated(line.pop("source_columns")) for line in made] == [stated(row) for row in ROWS]
    messages = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"To French: {row['text']} ({row['doc']})"},
        ]
        for row in ROWS
    ]
    assert made == [
        {"custom_id": 7, "messages": messages[0], "temperature": 0.5, "top_p": 0.9}
        | {"max_tokens": 50},
        {"custom_id": 3, "messages": messages[1], "temperature": 0.1, "top_p": 0.9}
        | {"max_tokens": 9},
    ]
    assert requests.remarks == (
        'taken for parameters of the requests, as their names say: "temperature", "max_tokens"',
    )


def test_csv_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "r.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(
            "doc,text,zip,score,price,top_p\n007,cat,0123,0.5,1.10,1\nb,3,0456,-2.25,2,0.50\n"
        )
    requests = read_requests(path, prompt_column="text", id_column="doc")
    first, second = lines(requests)
    assert first["source_columns"] == {
        "doc": "007", "text": "cat", "zip": "0123", "score": 0.5, "price": "1.10", "top_p": 1.0,
    }  # fmt: skip
    assert second["prompt"] == "3"
    assert (first["top_p"], second["top_p"]) == (1.0, 0.5)
    assert requests.ids.to_pylist() == ["007", "b"]
    assert requests.columns is not None
    assert requests.columns.names == ["doc", "text", "zip", "score", "price", "top_p"]


def test_csv_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blendplan.requests.csv_files._BLOCK_BYTES", 1 << 10)
    path = tmp_path / "r.csv"
    rows = [f"{number},{number if number < 900 else 'x'},{'word ' * 9}" for number in range(1000)]
    path.write_text("\n".join(["a,b,prompt", *rows]) + "\n")
    requests = read_requests(path)
    assert len(requests) == 1000
    assert [line["b"] for line in lines(requests)] == [row.split(",")[1] for row in rows]
    assert [line["a"] for line in lines(requests)] == list(range(1000))


def test_what_requests_say_themselves_counts(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    own = [{"role": "system", "content": "mine"}, *chat]
    rows: list[dict[str, Any]] = [
        {"messages": own, "max_completion_tokens": 5, "temperature": 0},
        {"custom_id": "b", "url": "/v1/chat/completions", "body": {"messages": chat}},
        {"custom_id": "c", "url": "/v1/responses", "body": {"input": "hi"}},
        {"custom_id": "d", "url": "/v1/responses", "body": {"input": "hi", "instructions": "m"}},
        {"prompt": "hi", "temperature": None},
    ]
    made = body_lines(
        tmp_path / "r.jsonl", rows, system="S", max_tokens=7, parameters={"temperature": 0.5}
    )
    system = {"role": "system", "content": "S"}
    assert made == [
        rows[0],
        rows[1] | {"body": {"messages": [system, *chat], "temperature": 0.5, "max_tokens": 7}},
        rows[2]
        | {
            "body": {
                "input": "hi", "instructions": "S", "temperature": 0.5, "max_output_tokens": 7,
            }
        },
        rows[3]
        | {
            "body": {
                "input": "hi", "instructions": "m", "temperature": 0.5, "max_output_tokens": 7,
            }
        },
        {"messages": [system, *chat], "temperature": 0.5, "max_tokens": 7},
    ]  # fmt: skip
    vectors: list[dict[str, Any]] = [
        {"custom_id": "e", "url": "/v1/embeddings", "body": {"input": "hi"}}
    ]
    assert body_lines(tmp_path / "r.jsonl", vectors, max_tokens=7) == vectors


def test_a_chat_is_asked_for(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"q": "hi"}]
    (line,) = body_lines(tmp_path / "r.jsonl", rows, prompt_column="q", chat=True)
    assert line["messages"] == [{"role": "user", "content": "hi"}]
    assert "prompt" not in line
    wrongs: list[dict[str, Any]] = [
        {"prompt_token_ids": [1, 2]},
        {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "hi"}},
        {"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "hi"}},
    ]
    for wrong in wrongs:
        write(tmp_path / "r.jsonl", [wrong])
        with pytest.raises(BlendplanError, match="line 1: a system message needs a text or mess"):
            read_requests(tmp_path / "r.jsonl", system="S")


def test_other_columns_reach_no_engine(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "text": "hi",
        "model": "gpt",
        "user": 5,
        "url": "https://x.org",
        "body": "b",
        "n": 1,
    }
    row |= {"when": datetime(2020, 1, 2), "raw": b"\xff\0", "gone": None, "bad": float("inf")}
    (line,) = body_lines(tmp_path / "r.parquet", [row], prompt_column="text")
    assert line.keys() == {"prompt", "n", "source_columns"}
    assert line["source_columns"] == {
        "text": "hi", "model": "gpt", "user": 5, "url": "https://x.org", "body": "b", "n": 1,
        "when": "2020-01-02 00:00:00.000000", "raw": "/wA=", "bad": "inf",
    }  # fmt: skip


def test_rows_that_lack_something_are_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"t": "a", "k": 1},
        {"t": None, "k": 2},
        {"t": "c", "k": None},
        {"t": "", "k": 4},
    ]
    path = write(tmp_path / "r.parquet", rows)
    with pytest.raises(
        BlendplanError, match=r'row 2: .* "t", which is to hold the prompt; fill it'
    ):
        read_requests(path, prompt_column="t")
    with pytest.raises(BlendplanError, match='row 2: no value in "t", which the template names'):
        read_requests(path, template="{t} {k}")
    some = write(tmp_path / "s.parquet", [rows[0], rows[3], rows[2]])
    with pytest.raises(BlendplanError, match='row 3: no value in "k", which is to hold the id'):
        read_requests(some, template="x{t}", id_column="k")
    requests = read_requests(path, prompt_column="t", id_column="k", on_error="skip")
    assert requests.ids.to_pylist() == ["1"]
    assert requests.source_row.tolist() == [0]
    assert requests.rejects.column("source_row").to_pylist() == [1, 2, 3]
    path = write(tmp_path / "r.parquet", [{"t": "a", "k": 1.5}])
    with pytest.raises(BlendplanError, match=r'"k", which is to hold the id, is 1\.5; ids are'):
        read_requests(path, prompt_column="t", id_column="k")


def test_half_a_character_is_refused_where_it_matters_and_carried_where_not(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"t": "a", "x": "\\ud800"}\n{"t": "\\ud800", "x": "b"}\n')
    table = write(tmp_path / "r.parquet", [{"prompt": "a", "metadata": '{"x": "\\ud800"}'}])
    assert lines(read_requests(table))[0]["metadata"] == {"x": "\ud800"}
    table = write(
        tmp_path / "m.parquet", [{"messages": '[{"role": "user", "content": "\\ud800"}]'}]
    )
    with pytest.raises(BlendplanError, match=r"row 1: .*half a surrogate pair"):
        read_requests(table)
    requests = read_requests(path, prompt_column="t", on_error="skip")
    assert [line["source_columns"]["x"] for line in lines(requests)] == ["\ud800"]
    assert requests.rejects.column("source_row").to_pylist() == [1]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"prompt_column": "no"}, 'has no column "no", only doc, text, kind'),
        ({"template": "{text} {no}"}, 'has no column "no", only doc, text, kind'),
        ({"prompt_column": "text", "id_column": "no"}, 'has no column "no", only doc, text'),
        ({"template": "{text}", "prompt_column": "text"}, "both a template and a prompt column"),
        ({"template": "{}"}, "field without a name"),
        ({"prompt_columm": "text"}, "prompt_column"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"chat": "yes"}, "chat is"),
        ({"parameters": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"parameters": {"temperature": "hot"}}, 'temperature is "hot"; give a number'),
        ({"parameters": {"max_new_tokens": 5}}, 'write "max_tokens"'),
        ({"parameters": {"prompt": "x"}}, 'parameter "prompt" is none of sampling'),
        ({"parameters": {"n": 0}}, 'parameters: "n" is 0'),
        ({"parameters": {"max_tokens": 5}, "max_tokens": 6}, "max_tokens is given twice"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, shape: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "r.parquet", ROWS)
    with pytest.raises(BlendplanError) as caught:
        read_requests(path, **shape)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
