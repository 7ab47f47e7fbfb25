"""Rows of data from the command line: every command that reads requests takes the same options."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.planfile.plan import Plan
from tests.cli.cli_runs import answer, error_line, run

GPU = ("--gpu", "l4", "--kv-tokens", "4000", "--effort", "0")
SHAPE = ("--template", "To French: {text}", "--system", "S", "--id-column", "doc", "--max-tokens",
         "6", "--param", "temperature=0.5", "--param", "stop=END")  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = {"doc": list(range(10, 40)), "text": [f"word {n} " * (n + 1) for n in range(30)]}
    pq.write_table(pa.table(rows), tmp_path / "r.parquet")
    return tmp_path / "r.parquet"


def test_a_table_of_texts_is_planned_and_run(table: Path, tmp_path: Path) -> None:
    plan, results = tmp_path / "plan.arrow", tmp_path / "results.jsonl"
    assert answer("plan", table, *SHAPE, *GPU, "-o", plan)["requests"] == 30
    made = Plan.read(plan)
    made.verify(plan)
    first = json.loads(made.table.column("body")[0].as_py())
    assert first["messages"][1]["content"] == f"To French: {first['source_columns']['text']}"
    assert (first["stop"], first["temperature"], first["max_tokens"]) == ("END", 0.5, 6)
    answer("replay", plan, "-o", results)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == list(range(10, 40))
    assert all(line["response"]["body"]["usage"]["completion_tokens"] <= 6 for line in lines)
    answer("export", plan, "-o", tmp_path / "ordered.jsonl")
    exported = json.loads((tmp_path / "ordered.jsonl").read_text().splitlines()[0])
    assert exported["body"].keys() == {"messages", "temperature", "stop", "max_tokens"}


def test_every_command_that_reads_requests_takes_them(table: Path, tmp_path: Path) -> None:
    said = answer("compare", table, *SHAPE, *GPU, "--policies", "fcfs")
    assert said["policies"]["fcfs"]["requests"] == 30
    said = answer("sample", table, *SHAPE, "--engine", "sim", "-o", tmp_path / "s.jsonl")
    assert said["finished"] == 30
    said = answer("plan", table, *SHAPE, *GPU, "--processes", "1", "-o", f"{tmp_path}/plan/")
    assert said["requests"] == 30
    options = json.loads((tmp_path / "plan" / "manifest.json").read_text())["options"]
    assert (options["template"], options["max_tokens"]) == ("To French: {text}", 6)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--template", "{}"], 2, "field without a name"),
        (["--prompt-column", "text", "--template", "{text}"], 2, "give one of them"),
        (["--prompt-column", "txt"], 1, 'has no column "txt", only doc, text'),
        (["--prompt-column", "text", "--param", "temperature"], 2, "is not NAME=VALUE"),
        (["--prompt-column", "text", "--param", "top_p=x"], 2, 'top_p is "x"; give a number'),
        (["--prompt-column", "text", "--param", "n=1", "--param", "n=2"], 2, "n is given twice"),
        (["--prompt-column", "text", "--max-tokens", "0"], 2, "0 is not in the range"),
    ],
)
def test_wrong_words_are_one_line(
    table: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    result = run("plan", table, *words, *GPU, "-o", tmp_path / "plan.arrow")
    assert result.exit_code == code
    assert said in error_line(result)
