"""Exported batch files: every request once, in the plan's order, meaning what it meant."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blendplan
from blendplan.errors import BlendplanError
from blendplan.planfile import export as export_module
from blendplan.planfile.batch_lines import batch_block, batch_line
from blendplan.planfile.plan import Plan
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.requests.record import BadRecordError
from tests.cli.cli_runs import answer, error_line, run
from tests.replaying.replay_jobs import lines_of, small_plan, write_requests_file

CHAT = {"messages": [{"role": "user", "content": 'the "body": {} of é\n'}], "max_tokens": 7}


def whole_line(row: int, **body: Any) -> dict[str, Any]:
    return {
        "custom_id": f"r-{row}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", **CHAT, **body},
    }


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def content(requests: Requests) -> dict[str, tuple[Any, ...]]:
    """What a request means to planning, by its id."""
    answers = np.ones(len(requests)) if requests.answers is None else requests.answers
    return {
        requests.ids[row].as_py(): (
            requests.prompt(row).tolist(),
            int(requests.output_tokens[row]),
            int(requests.max_tokens[row]),
            int(answers[row]),
        )
        for row in range(len(requests))
    }


def order_of(made: Plan) -> list[str]:
    """Request ids in the order of a plan, each once."""
    rows = np.flatnonzero(made.column("answer") == 0)
    return [made.table.column("request_id")[row].as_py() for row in rows]


def exported(made: Plan, folder: Path, **options: Any) -> list[dict[str, Any]]:
    blendplan.export(made, folder / "ordered.jsonl", **options)
    return lines_of(folder / "ordered.jsonl")


@pytest.mark.parametrize("policy", ["blend", "dfs"])
def test_each_request_is_there_once_in_order_and_plans_again(tmp_path: Path, policy: str) -> None:
    job = write_requests_file(tmp_path / "job.jsonl", 60, answers=4)
    made = small_plan(job, policy=policy)
    lines = exported(made, tmp_path)
    assert [line["custom_id"] for line in lines] == order_of(made)
    assert content(read_requests(tmp_path / "ordered.jsonl")) == content(read_requests(job))
    for line in lines:
        assert (line["method"], line["url"]) == ("POST", "/v1/completions")
        assert "prompt_token_ids" not in line["body"]
        assert isinstance(line["body"]["prompt"], list)


def test_batch_lines_are_written_as_they_came(tmp_path: Path) -> None:
    lines = [whole_line(row, temperature=0.10, metadata={"body": {"a": row}}) for row in range(9)]
    lines += [{**whole_line(9), "custom_id": 9, "note": None}]
    job = write_lines(tmp_path / "job.jsonl", lines)
    made = small_plan(job, policy="blend")
    blendplan.export(made, tmp_path / "ordered.jsonl")
    names = [str(line["custom_id"]) for line in lines]
    texts = dict(zip(names, job.read_text().splitlines(), strict=True))
    assert (tmp_path / "ordered.jsonl").read_text().splitlines() == [
        texts[name] for name in order_of(made)
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {"id": 7, **CHAT, "output_tokens": 3, "seed": 1},
            {
                "custom_id": 7,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {**CHAT, "seed": 1},
                "output_tokens": 3,
            },
        ),
        (
            {"prompt": "hello", "n": 2, "temperature": 1, "max_tokens": 9},
            {
                "custom_id": "1",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"prompt": "hello", "n": 2, "temperature": 1, "max_tokens": 9},
            },
        ),
        (
            {"id": "a", "prompt_token_ids": [5, 6], "prompt": "not read", "max_tokens": 9},
            {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"prompt": [5, 6], "max_tokens": 9},
            },
        ),
        (
            {"id": "a", "body": {**CHAT, "output_tokens": 3}, "tag": "x"},
            {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {**CHAT, "output_tokens": 3},
                "tag": "x",
            },
        ),
    ],
)
def test_other_lines_become_the_batch_line_that_means_the_same(
    tmp_path: Path, line: dict[str, Any], expected: dict[str, Any]
) -> None:
    job = write_lines(tmp_path / "job.jsonl", [line])
    made = small_plan(job, policy="fcfs")
    assert exported(made, tmp_path) == [expected]
    again = read_requests(tmp_path / "ordered.jsonl")
    assert content(again) == content(read_requests(job))


def test_requests_from_tables_and_memory_say_all_that_they_said(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": [3, 4],
            "prompt_token_ids": [[1, 2], [1, 3]],
            "max_tokens": [5, None],
            "output_tokens": [None, 4],
            "temperature": [None, 0.5],
        }
    )
    pq.write_table(table, tmp_path / "job.parquet")
    lines = exported(small_plan(tmp_path / "job.parquet", policy="fcfs"), tmp_path)
    bodies = [line["body"] for line in lines]
    assert bodies == [
        {"prompt": [1, 2], "max_tokens": 5},
        {"prompt": [1, 3], "temperature": 0.5},
    ]
    assert lines[1]["output_tokens"] == 4

    requests = requests_from_lists(
        [[1], [2], [3]], max_tokens=[None, 9, 9], output_tokens=[6, None, None], answers=[1, 3, 1]
    )
    exported(small_plan(requests, policy="fcfs"), tmp_path)
    assert content(read_requests(tmp_path / "ordered.jsonl")) == content(requests)


def test_priority_and_model_are_put_into_bodies(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [whole_line(row) for row in range(5)]
    lines += [whole_line(5, priority=99), whole_line(6, model=None), whole_line(7)]
    del lines[7]["body"]["model"]
    lines += [{"id": "plain", "prompt": "hello"}]
    made = small_plan(write_lines(tmp_path / "job.jsonl", lines), policy="dfs")
    found = exported(made, tmp_path, priority=True, model="mine")
    assert [line["body"]["priority"] for line in found] == list(range(9))
    models = {line["custom_id"]: line["body"]["model"] for line in found}
    assert models == {f"r-{row}": "m" for row in range(6)} | dict.fromkeys(
        ("r-6", "r-7", "plain"), "mine"
    )
    plain = exported(made, tmp_path)
    for line, before in zip(found, plain, strict=True):
        for name in ("priority", "model"):
            line["body"].pop(name, None)
            before["body"].pop(name, None)
        assert line == before


TEXTS = st.text(max_size=8) | st.sampled_from(['"body": {', '\\"body":{', "\ud800", "\n"])
VALUES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["body", "model", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)
BODIES = st.fixed_dictionaries(
    {"prompt": st.just("a")},
    optional={
        "model": st.sampled_from(["m", None]),
        "priority": st.sampled_from([3, None]),
        "metadata": VALUES,
        "prompt_token_ids": st.none(),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=4),
    ascii_only=st.booleans(),
    priority=st.booleans(),
    model=st.none() | st.just('a "model"'),
)
def test_many_lines_at_once_are_as_one_by_one(
    bodies: list[dict[str, Any]], ascii_only: bool, priority: bool, model: str | None
) -> None:
    lines = []
    for place, body in enumerate(bodies):
        line = {**whole_line(place), "url": "/v1/completions", "body": body}
        text = json.dumps(line, ensure_ascii=ascii_only)
        lines.append(text.encode("utf-8", "replace"))
    block = batch_block(lines, range(len(lines)) if priority else None, model)
    single = [
        batch_line("-", line, None, priority=place if priority else None, model=model)
        for place, line in enumerate(lines)
    ]
    assert all(b"\n" not in line for line in single)
    if block is not None:
        assert block.split(b"\n") == [*single, b""]
    for place, (came, own) in enumerate(zip(lines, single, strict=True)):
        told, wanted = json.loads(own), json.loads(came)
        if priority:
            wanted["body"]["priority"] = place
        if model is not None and wanted["body"].get("model") is None:
            wanted["body"]["model"] = model
        assert told == wanted


def test_plain_batch_lines_go_the_fast_way() -> None:
    lines = [json.dumps(whole_line(row)).encode() for row in range(3)]
    assert batch_block(lines, range(3), "mine") is not None


def test_shards_are_runs_of_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "_REQUESTS_AT_ONCE", 4)
    job = write_requests_file(tmp_path / "job.jsonl", 23, answers=3)
    made = small_plan(job, policy="blend")
    files = blendplan.export(made, tmp_path / "o.jsonl.gz", shards=5, priority=True)
    assert [file.name for file in files] == [f"o-0000{i}-of-00005.jsonl.gz" for i in range(5)]
    texts = [gzip.decompress(file.read_bytes()).splitlines() for file in files]
    parts = [[json.loads(line) for line in text] for text in texts]
    assert sorted(map(len, parts)) == [4, 4, 5, 5, 5]
    lines = [line for part in parts for line in part]
    assert [line["custom_id"] for line in lines] == order_of(made)
    assert [line["body"]["priority"] for line in lines] == list(range(23))
    assert len(list(tmp_path.iterdir())) == 6


def test_a_plan_for_several_replicas_is_exported_by_part(tmp_path: Path) -> None:
    job = write_requests_file(tmp_path / "job.jsonl", 40)
    made = small_plan(job, replicas=2)
    with pytest.raises(BlendplanError, match="2 replicas; export each by itself, replica 0 to 1"):
        exported(made, tmp_path)
    found = [
        line["custom_id"]
        for replica in (0, 1)
        for line in exported(made, tmp_path, replica=replica)
    ]
    assert found == order_of(made)


def test_the_command_writes_files_or_to_standard_output(tmp_path: Path) -> None:
    job = write_requests_file(tmp_path / "job.jsonl", 12)
    made = small_plan(job)
    plan = tmp_path / "plan.arrow"
    made.write(plan)
    output = tmp_path / "ordered.jsonl"
    output.write_text("an earlier one")
    told = answer("export", plan, "-o", output)
    assert told == {"requests": 12, "files": [str(output)]}
    piped = run("export", plan, "-o", "-")
    assert piped.exit_code == 0
    assert piped.stdout == output.read_text()
    result = run("export", plan, "-o", output, "--shards", "3")
    assert "12 requests written to 3 files" in result.stdout
    assert (tmp_path / "ordered-00002-of-00003.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        ("-o {dir}/x.parquet", 1, "JSON lines"),
        ("-o {plan}", 1, "it is an input"),
        ("-o {dir}/no/x.jsonl", 1, "does not exist"),
        ("-o - --shards 2", 2, "--shards are several files"),
        ("-o - --json", 2, "standard output"),
        ("-o {dir}/x.jsonl --shards 13", 1, "shards is 13; give a whole number from 1 to 12"),
        ("-o {dir}/x.jsonl --shards 0", 2, "0 is not in the range"),
        ("-o {dir}/x.jsonl --replica 1", 1, "no replica 1"),
        ("--priority", 2, "-o"),
    ],
)
def test_bad_command_lines_are_one_line(tmp_path: Path, words: str, code: int, part: str) -> None:
    made = small_plan(write_requests_file(tmp_path / "job.jsonl", 12))
    made.write(tmp_path / "plan.arrow")
    before = sorted(tmp_path.iterdir())
    given_words = words.format(dir=tmp_path, plan=tmp_path / "plan.arrow").split()
    result = run("export", tmp_path / "plan.arrow", *given_words)
    assert result.exit_code == code
    assert part in error_line(result)
    assert sorted(tmp_path.iterdir()) == before


def test_a_request_without_a_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecordError, match="no prompt"):
        batch_line("a", None, None)
    made = small_plan(write_requests_file(tmp_path / "job.jsonl", 4), policy="fcfs")
    place = made.table.column_names.index("body")
    broken = made.table.set_column(place, "body", pa.array([b"[]"] * 4, pa.binary()))
    with pytest.raises(BlendplanError, match=r'request "batch-0" of the plan: .*not a JSON object'):
        blendplan.export(Plan(broken, made.metadata), tmp_path / "x.jsonl")
    assert list(tmp_path.iterdir()) == [tmp_path / "job.jsonl"]


def test_the_file_that_was_planned_is_not_replaced(tmp_path: Path) -> None:
    job = write_lines(tmp_path / "job.jsonl", [{"prompt": "a", "max_tokens": 3}, {"prompt": "b"}])
    made, before = small_plan(job, policy="fcfs"), job.read_bytes()
    with pytest.raises(BlendplanError, match="the file that the plan was made from"):
        blendplan.export(made, job)
    assert job.read_bytes() == before
