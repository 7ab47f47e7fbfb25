"""Trying a job out: the first requests alone, and a plan that is not written."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blendplan.planfile.plan import Plan
from tests.cli.cli_runs import answer, error_line, run, write_job
from tests.replaying.replay_jobs import lines_of

GPU = ("--gpu", "l4", "--kv-tokens", "4000", "--effort", "0")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path / "r.jsonl", 30)


def test_the_first_lines_are_planned(job: Path, tmp_path: Path) -> None:
    with job.open("a") as file:
        file.write("no request\n")
    plan = tmp_path / "plan.arrow"
    result = run("plan", job, *GPU, "--limit", "7", "-o", plan)
    assert result.exit_code == 0, result.stderr
    assert "only the first 7 lines were looked at" in result.stderr
    made = Plan.read(plan)
    assert sorted(made.column("source_row")) == list(range(7))
    checked = answer("verify", plan, "--requests", job)["checked"]
    assert checked[-1] == "made from r.jsonl"
    said = answer("compare", job, *GPU, "--limit", "30", "--policies", "fcfs")
    assert said["policies"]["fcfs"]["requests"] == 30
    assert "line 31" in error_line(run("plan", job, *GPU, "--limit", "31", "-o", plan))


def test_a_dry_run_shows_what_would_be_planned(job: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = answer("plan", job, *GPU, "--dry-run")
    assert said["output"] is None
    assert said["requests"] == 30
    assert said["first_request"]["custom_id"] == "exam-0"
    assert said["first_request"]["body"]["prompt"] == [*range(200), 1000]
    result = run("plan", job, *GPU, "--dry-run", "--limit", "3", "-o", tmp_path / "plan.arrow")
    assert "none, a dry run" in result.stdout
    assert '"custom_id": "exam-0"' in result.stdout
    assert sorted(tmp_path.iterdir()) == before
    written = answer("plan", job, *GPU, "-o", tmp_path / "plan.arrow")
    for key in ("predicted", "bound_s", "density"):
        assert written[key] == said[key]


def test_a_dry_run_writes_no_rejects(job: Path, tmp_path: Path) -> None:
    with job.open("a") as file:
        file.write("no request\n")
        file.write('{"id": "long", "prompt_token_ids": [1], "output_tokens": 5000}\n')
    before = sorted(tmp_path.iterdir())
    result = run("plan", job, *GPU, "--dry-run", "--on-error", "skip")
    assert result.exit_code == 0, result.stderr
    assert "left out 2 bad or too long requests; without --dry-run" in result.stderr
    job.write_text("no request\n")
    none = error_line(run("plan", job, *GPU, "--dry-run", "--on-error", "skip"))
    assert "none of its 1 lines is a good request; the first: not JSON" in none
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_first_requests_are_run_as_a_trial(job: Path, tmp_path: Path, suffix: str) -> None:
    plan, trial = tmp_path / "plan.arrow", tmp_path / f"trial.{suffix}"
    answer("plan", job, *GPU, "-o", plan)
    said = answer("replay", plan, "--limit", "5", "-o", trial)
    assert (said["requests"], said["finished"]) == (5, 5)
    names = [json.loads(line)["id"] for line in job.read_text().splitlines()]
    assert [line["custom_id"] for line in lines_of(trial)] == names[:5]
    assert not trial.with_name(f"{trial.name}.journal").exists()
    assert answer("replay", plan, "--limit", "5", "-o", trial, "--resume")["already_done"] == 5
    whole = tmp_path / "whole.parquet"
    said = answer("replay", plan, "--already", trial, "-o", whole)
    assert (said["already_done"], said["finished"]) == (5, 25)
    assert pq.read_table(whole).column("custom_id").to_pylist() == names
    assert lines_of(whole)[:5] == lines_of(trial)
    assert answer("replay", plan, "--limit", "99")["finished"] == 30


def test_a_trial_is_resumed_as_such(job: Path, tmp_path: Path) -> None:
    plan, trial = tmp_path / "plan.arrow", tmp_path / "trial.jsonl"
    answer("plan", job, *GPU, "-o", plan)
    answer("replay", plan, "--limit", "5", "-o", trial)
    header = {"blendplan_journal": 1, "order": "input", "plan": "x", "limit": "5"}
    trial.with_name("trial.jsonl.journal").write_text(json.dumps(header) + "\n")
    assert "belongs to another run" in error_line(run("replay", plan, "-o", trial, "--resume"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "0", "-o", "p.arrow"], "0 is not in the range"),
        (["--limit", "5", "-o", "p/"], "--limit and --dry-run try out a plan file"),
        (["--dry-run", "-o", "p/"], "--limit and --dry-run try out a plan file"),
        ([], "missing option '-o FILE'"),
    ],
)
def test_wrong_words_are_one_line(job: Path, words: list[str], said: str) -> None:
    assert said in error_line(run("plan", job, *GPU, *words))
