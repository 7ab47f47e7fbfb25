"""`run`: from a request file to results in one command, and again after it was cut short."""

import json
import re
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.planfile.plan import Plan
from tests.cli.cli_runs import answer, error_line, run, start, write_job

MACHINE = ("--engine", "sim", "--gpu", "a100-80g", "--kv-tokens", "4096")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("job") / "requests.jsonl")


def ids(results: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in results.read_text().splitlines()]


def answers(results: Path) -> list[object]:
    """Lines without the moment at which they were made."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    for line in lines:
        del line["response"]["body"]["created"]
    return lines


def expected_ids(job: Path) -> list[str]:
    return [json.loads(line)["id"] for line in job.read_text().splitlines()]


def test_one_command_does_what_plan_and_replay_do(job: Path, tmp_path: Path) -> None:
    results, plan = tmp_path / "results.jsonl", tmp_path / "by_hand.arrow"
    values = answer("run", job, *MACHINE, "-o", results, "--price", "a100-80g=3.6")
    assert answer("plan", job, *MACHINE[2:], "-o", plan)
    by_hand = answer("replay", plan, "-o", tmp_path / "by_hand.jsonl")
    assert answers(results) == answers(tmp_path / "by_hand.jsonl")
    assert ids(results) == expected_ids(job)
    ours = Plan.read(tmp_path / "results.jsonl.plan.arrow")
    assert ours.table.equals(Plan.read(plan).table)
    assert values["makespan_s"] == by_hand["makespan_s"]
    assert values["job"]["cost"] == pytest.approx(values["makespan_s"] / 1000)


def test_the_summary_says_what_the_job_was(job: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    values = answer("run", job, *MACHINE, "-o", results, "--tp", "2")
    summary = json.loads((tmp_path / "results.jsonl.summary.json").read_text())
    assert summary["complete"]
    assert (summary["answered"], summary["failed"], summary["errors"]) == (60, 0, {})
    assert summary["measured"]["makespan_s"] == values["makespan_s"]
    assert summary["measured"]["output_tokens"] == 20 * (2 + 40 + 600)
    assert summary["gpu_hours"] == pytest.approx(2 * values["makespan_s"] / 3600)
    assert summary["cost"] is None
    page = (tmp_path / "results.jsonl.summary.html").read_text()
    assert "results.jsonl: 60 answers" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)


def test_the_same_command_again_has_nothing_to_do(job: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    first = answer("run", job, *MACHINE, "-o", results, "--price", "a100-80g=2")
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = answer("run", job, *MACHINE, "-o", results)
    assert (again["finished"], again["already_done"]) == (0, 60)
    assert again["job"]["cost"] == first["job"]["cost"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


# The command, with a summary that is up to date at every moment.
NOTING = """
import blendplan.cli.run
blendplan.cli.run.WRITE_EVERY_S = 0.0
from blendplan.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_after_a_kill(tmp_path: Path, number: int) -> None:
    job = write_job(tmp_path / "requests.jsonl", 3000)
    results = tmp_path / "results.jsonl"
    words = ("run", job, "--engine", "sim", "--gpu", "a100-80g", "-o", results, "--effort", "0")
    process = start(*words, script=NOTING)
    journal = tmp_path / "results.jsonl.journal"
    while process.poll() is None and (not journal.exists() or journal.stat().st_size < 2000):
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130, stderr
        assert stderr.splitlines()[-1].endswith("the same command again continues it")
    assert not results.exists()
    planned = (tmp_path / "results.jsonl.plan.arrow").read_bytes()
    values = answer(*words)
    assert values["already_done"] > 0
    assert values["already_done"] + values["finished"] == 3000
    assert ids(results) == expected_ids(job)
    assert (tmp_path / "results.jsonl.plan.arrow").read_bytes() == planned
    summary = json.loads((tmp_path / "results.jsonl.summary.json").read_text())
    first, second = summary["sessions"]
    assert second["finished"] == values["finished"]
    # Those of the last moment before a kill may be missing.
    assert 0 <= values["already_done"] - first["finished"] <= 50
    assert summary["measured"]["makespan_s"] == first["makespan_s"] + second["makespan_s"]


def test_another_job_does_not_touch_the_results(job: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    answer("run", job, *MACHINE, "-o", results)
    before = results.read_bytes()
    other = write_job(tmp_path / "requests.jsonl", 30)
    for words, what in (
        ((job, *MACHINE, "--policy", "dfs"), "--policy"),
        ((job, *MACHINE, "--max-num-seqs", "3", "--seed", "1"), "--max-num-seqs, --seed"),
        ((other, *MACHINE), "REQUESTS"),
        ((job, *MACHINE, "--max-tokens", "7"), "--max-tokens"),
        ((job, *MACHINE, "--param", "top_p=0.5", "--limit", "9"), "--param, --limit"),
    ):
        line = error_line(run("run", *words, "-o", results, "--quiet"))
        assert f"is of another job ({what} changed since)" in line
    assert results.read_bytes() == before


def test_without_results_another_job_is_planned_anew(job: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    answer("run", job, *MACHINE, "-o", results)
    results.unlink()
    values = answer("run", job, *MACHINE, "--policy", "dfs", "-o", results)
    assert values["finished"] == 60
    assert Plan.read(tmp_path / "results.jsonl.plan.arrow").metadata["policy"] == "dfs"


def test_what_cannot_run_is_said_in_one_line(job: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    usage = run("run", job, *MACHINE, "-o", results, "--replicas", "2")
    assert usage.exit_code == 2
    assert "add --ray auto" in error_line(usage)
    assert "--ray" in error_line(run("run", job, *MACHINE, "-o", results, "--replicas-max", "2"))
    other = error_line(run("run", job, *MACHINE, "-o", results, "--price", "h100-80g=2"))
    assert "price for h100-80g, which --gpu does not name" in other
    (tmp_path / "results.jsonl.journal").write_text("")
    assert "whose plan is not at" in error_line(run("run", job, *MACHINE, "-o", results))


def test_a_folder_of_texts_becomes_a_table(tmp_path: Path) -> None:
    folder, results = tmp_path / "texts", tmp_path / "results.parquet"
    folder.mkdir()
    for number in range(2):
        rows = {"id": [2 * number, 2 * number + 1], "text": ["a b", "c d"], "kind": ["x", "y"]}
        pq.write_table(pa.table(rows), folder / f"{number}.parquet")
    words = ("run", folder, "--prompt-column", "text", "--max-tokens", "3", *MACHINE, "-o", results)
    assert answer(*words)["finished"] == 4
    table = pq.read_table(results)
    assert table.column("custom_id").to_pylist() == [0, 1, 2, 3]
    assert table.column("kind").to_pylist() == ["x", "y"] * 2
    assert table.column("output_tokens").to_pylist() == [3] * 4
    assert answer(*words)["already_done"] == 4
    pq.write_table(pa.table({"id": [9], "text": ["e"]}), folder / "2.parquet")
    assert "REQUESTS changed since" in error_line(run(*words))
    piped = ("run", "-", *MACHINE, "-o", tmp_path / "piped.jsonl")
    assert "cannot be read again" in error_line(run(*piped))


def test_what_the_engine_cannot_do_is_said_before_planning(job: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    words = ("run", job, *MACHINE, "-o", results)
    assert "drop --pdmux" in error_line(run(*words, "--pdmux"))
    assert "takes no engine arguments" in error_line(run(*words, "--", "--enforce-eager"))
    if find_spec("vllm") is None:
        line = error_line(run("run", job, "--engine", "vllm", "--gpu", "l4", "-o", results))
        assert "pip install 'blendplan[vllm]'" in line
    assert list(tmp_path.iterdir()) == []
