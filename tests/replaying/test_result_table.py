"""Results as a table: the same results as lines, beside the columns of the data."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import read_results
from blendplan.planfile.plan import Plan
from blendplan.replaying.result_table import write_table
from blendplan.replaying.run import replay
from blendplan.replaying.sample_run import run_sample
from blendplan.requests.beside import NamedLine, beside_of
from blendplan.requests.output_table import ANSWER
from blendplan.requests.read import read_requests
from tests.replaying.replay_jobs import lines_of, small_plan, write_requests_file

# Columns by the names of an answer's, of other types, with gaps, and one without any value.
DATA = pa.table(
    {
        "doc": pa.array([5, 3, 9, 7], pa.int16()),
        "text": ["wall", None, "mill", "hill"],
        "source_text": ["a", "b", "c", "d"],
        "day": pa.array([date(2020, 1, 2), None, date(1, 1, 1), date(9999, 1, 1)]),
        "score": pa.array([0.1, float("nan"), None, float("inf")], pa.float32()),
        "raw": [b"\xff", b"", None, b"a"],
        "void": pa.nulls(4),
        "tags": [["a"], [], None, ["b", None]],
    }
)


def planned(folder: Path) -> Plan:
    pq.write_table(DATA, folder / "r.parquet")
    asked = read_requests(
        folder / "r.parquet", on_error="skip", prompt_column="text", id_column="doc", max_tokens=5
    )
    made = small_plan(asked)
    made.write(folder / "plan.arrow")
    return Plan.read(folder / "plan.arrow")


def test_source_columns_stand_beside_answers_as_they_were(tmp_path: Path) -> None:
    output = tmp_path / "results.parquet"
    replay(planned(tmp_path), output=output)
    table = pq.read_table(output)
    names = ["custom_id", "doc", "source_source_text", "source_text", *DATA.column_names[3:]]
    assert table.column_names == [*names, *ANSWER.names]
    # Of a row that was left out nothing but its id and what was wrong is known.
    assert table.column("custom_id").to_pylist() == [5, 3, 9, 7]
    assert table.column("error").is_valid().to_pylist() == [False, True, False, False]
    assert table.column("source_row").to_pylist() == [0, 1, 2, 3]
    kept = table.filter(table.column("error").is_null())
    whole = DATA.filter(DATA.column("text").is_valid())
    for name, there in zip(DATA.column_names, names[1:], strict=True):
        assert str(kept.column(there).combine_chunks()) == str(whole.column(name).combine_chunks())
        assert kept.schema.field(there).type == DATA.schema.field(name).type
    assert kept.column("output_tokens").to_pylist() == [5, 5, 5]
    assert kept.column("finish_reason").to_pylist() == ["length"] * 3
    assert kept.column("text").null_count == 0
    body = json.loads(kept.column("response")[0].as_py())
    assert body["choices"][0]["text"] == kept.column("text")[0].as_py()


@pytest.mark.parametrize("order", ["input", "finish"])
def test_a_table_says_what_the_lines_say(tmp_path: Path, order: Any) -> None:
    made = small_plan(write_requests_file(tmp_path / "r.jsonl", answers=3))
    table, lines = tmp_path / "results.parquet", tmp_path / "results.jsonl"
    replay(made, output=lines, order=order)
    replay(made, output=table, order=order)
    for line in (both := [lines_of(table), lines_of(lines)])[0] + both[1]:
        line["response"]["body"].pop("created", None)
    assert both[0] == both[1]
    rows = pq.read_table(table)
    firsts = rows.filter(pa.compute.equal(rows.column("choice"), 0))
    choices = [choice for line in both[1] for choice in line["response"]["body"]["choices"]]
    assert rows.column("text").to_pylist() == [choice["text"] for choice in choices]
    assert rows.column("choice").to_pylist() == [choice["index"] for choice in choices]
    assert rows.column("output_tokens").null_count == len(rows) - len(firsts)
    usage = [line["response"]["body"]["usage"] for line in both[1]]
    assert firsts.column("output_tokens").to_pylist() == [one["completion_tokens"] for one in usage]
    assert firsts.column("prompt_tokens").to_pylist() == [one["prompt_tokens"] for one in usage]
    # What is done is done, and a table of results serves as lines do.
    assert replay(made, output=table, order=order, resume=True).tally.left == 0
    again = replay(made, output=tmp_path / "again.parquet", already=table)
    assert again.tally.already_done == len(firsts)
    assert lines_of(tmp_path / "again.parquet") == sorted(
        lines_of(table), key=lambda line: int(line["id"].removeprefix("batch_req_"))
    )
    found, expected = read_results(table), read_results(lines)
    assert found.output_tokens.tolist() == expected.output_tokens.tolist()
    with pytest.raises(BlendplanError, match="results are never overwritten"):
        replay(made, output=table)


def test_ids_of_tables_of_token_ids_keep_their_type(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": [5, 6], "prompt_token_ids": [[1, 2], [3]], "max_tokens": [2, 2]}),
        tmp_path / "r.parquet",
    )
    made = small_plan(tmp_path / "r.parquet")
    replay(made, output=tmp_path / "o.parquet")
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column("custom_id").to_pylist() == [5, 6]
    assert table.column_names == ["custom_id", "id", "max_tokens", *ANSWER.names]
    replay(made, output=tmp_path / "o.jsonl")
    assert [line["custom_id"] for line in lines_of(tmp_path / "o.jsonl")] == [5, 6]


def test_bytes_that_are_texts_stay_what_they_say(tmp_path: Path) -> None:
    words = pa.array([b"abcd", b"word"])
    data = {"prompt": words, "data": words, "at": pa.array([5, 6], pa.time32("s"))}
    data["max_tokens"] = pa.array([2, 2])
    pq.write_table(pa.table(data), tmp_path / "r.parquet")
    replay(small_plan(tmp_path / "r.parquet"), output=tmp_path / "plain.parquet")
    plain = pq.read_table(tmp_path / "plain.parquet")
    assert plain.column("data").to_pylist() == ["abcd", "word"]
    assert plain.column("at").to_pylist() == ["00:00:05", "00:00:06"]
    asked = read_requests(tmp_path / "r.parquet", template="say {data}")
    replay(small_plan(asked), output=tmp_path / "shaped.parquet")
    shaped = pq.read_table(tmp_path / "shaped.parquet")
    source = pq.read_table(tmp_path / "r.parquet")
    assert shaped.select(source.column_names).cast(source.schema).equals(source)
    assert shaped.schema.field("at").type == source.schema.field("at").type


def test_a_sample_can_be_a_table(tmp_path: Path) -> None:
    pq.write_table(DATA, tmp_path / "r.parquet")
    requests = read_requests(tmp_path / "r.parquet", template="{doc}", max_tokens=3)
    run_sample(requests, "sim", tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column("doc").to_pylist() == [5, 3, 9, 7]


def test_lines_without_a_table_have_columns_too(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "prompt": "a", "label": "x", "n": 1, "score": 1, "mixed": 5, "deep": {"a": []}},
        {"id": 2, "prompt": "b", "label": None, "n": 1, "score": 0.5, "mixed": "5", "flag": True},
        {"custom_id": 3, "url": "/v1/completions", "body": {"prompt": "c"}, "label": "y"},
    ]
    asked = [NamedLine(row + 1, json.dumps(line).encode()) for row, line in enumerate(rows)]
    beside = beside_of(asked, None)
    assert {field.name: str(field.type) for field in beside.fields} == {
        "id": "int64", "prompt": "string", "label": "string", "n": "int64", "score": "double",
        "mixed": "string", "deep": "string", "flag": "bool",
    }  # fmt: skip
    table = dict(zip(beside.types, beside.columns(asked), strict=True))
    assert table["label"].to_pylist() == ["x", None, "y"]
    assert table["mixed"].to_pylist() == ["5", '"5"', None]
    assert table["deep"].to_pylist() == ['{"a": []}', None, None]
    assert beside_of([NamedLine("a", None), *asked], None).id_type == pa.string()


def test_answers_of_every_kind(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": None}
    tool = [{"function": {"name": "f"}}]
    bodies: list[Any] = [
        {"choices": [{"text": "a\ud800", "finish_reason": "stop"}, {"text": ""}], "usage": usage},
        {"choices": [{"message": {"content": None, "tool_calls": tool}}]},
        {
            "output": [
                {"type": "reasoning", "content": [{"text": "hm"}]},
                {"type": "message", "content": [{"text": "x"}, {"text": "y"}]},
            ],
            "status": "completed",
            "usage": {"input_tokens": 3, "output_tokens": 2},
        },
        {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 2}},
        None,
    ]
    lines: list[dict[str, Any]] = [
        {"id": f"batch_req_{row}", "response": {"status_code": "200", "body": body}, "error": None}
        for row, body in enumerate(bodies)
    ]
    lines[4] |= {"response": {"status_code": 400, "body": None}, "error": {"message": "no"}}
    lines.append({"id": "batch_req_5", "response": None, "error": {"code": "died"}})
    asked = [NamedLine(f"r{row}", None) for row in range(len(lines))]
    path = tmp_path / "t.parquet"
    with path.open("wb") as file:
        write_table(
            (json.dumps(line).encode() + b"\n" for line in lines),
            beside_of(asked, None),
            asked,
            file,
        )
    columns = pq.read_table(path).to_pydict()
    assert columns["custom_id"] == ["r0", "r0", "r1", "r2", "r3", "r4", "r5"]
    assert columns["text"] == ["a?", "", None, "xy", None, None, None]
    assert columns["finish_reason"] == ["stop", None, None, "completed", None, None, None]
    assert columns["prompt_tokens"] == [7, None, 0, 3, 2, None, None]
    assert columns["output_tokens"] == [5, None, 0, 2, 0, None, None]
    assert columns["status_code"] == [200, None, 200, 200, 200, 400, None]
    assert columns["error"][-2:] == ['{"message": "no"}', '{"code": "died"}']
    assert json.loads(columns["response"][2])["choices"][0]["message"]["tool_calls"] == tool
    found = lines_of(path)
    assert [line["error"] for line in found] == [line["error"] for line in lines]
    assert [line["response"] and line["response"]["body"] for line in found][1:] == [
        line["response"] and line["response"]["body"] for line in lines
    ][1:]


def test_other_tables_are_no_results(tmp_path: Path) -> None:
    pq.write_table(DATA, tmp_path / "r.parquet")
    with pytest.raises(BlendplanError, match="is a table, but not of results"):
        lines_of(tmp_path / "r.parquet")
