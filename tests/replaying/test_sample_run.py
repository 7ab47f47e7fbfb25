"""``blendplan sample``: a sample is run, planned with, and not run again."""

import json
from pathlib import Path

import pytest

from tests.cli.cli_runs import answer, error_line, run
from tests.replaying.replay_jobs import lines_of


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of requests whose output lengths nobody knows."""
    path = tmp_path_factory.mktemp("job") / "requests.jsonl"
    lines = [
        {"id": f"r{row}", "prompt": f"{'Translate' if row % 2 else 'Describe'} number {row}. " * 9}
        for row in range(600)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_sample_is_run_planned_with_and_taken_over(job: Path, tmp_path: Path) -> None:
    sample, plan = tmp_path / "sample.jsonl", tmp_path / "plan.arrow"
    told = answer("sample", job, "--fraction", "0.4", "--engine", "sim", "-o", sample)
    assert told["requests"] == told["finished"] == 240
    total = told["total_output_tokens"]
    assert total["results"] == 240
    assert total["low"] < total["estimate"] < total["high"]
    lengths = [line["response"]["body"]["usage"]["completion_tokens"] for line in lines_of(sample)]
    assert total["mean"] == pytest.approx(sum(lengths) / 240, rel=0.3)
    sampled = [line["custom_id"] for line in lines_of(sample)]
    assert len(sampled) == 240

    # An engine would have found other lengths than the prior; let these be the outcome.
    lines = lines_of(sample)
    for line in lines:
        line["response"]["body"]["usage"]["completion_tokens"] = 77
    sample.write_text("".join(json.dumps(line) + "\n" for line in lines))

    told = answer("plan", job, "--gpu", "l4", "--lengths", f"sample:{sample}", "-o", plan)
    assert told["total_output_tokens"]["estimate"] == pytest.approx(600 * 77)
    assert told["total_output_tokens"]["results"] == 240
    said = " ".join(
        run("plan", job, "--gpu", "l4", "--lengths", f"sample:{sample}", "-o", plan).stdout.split()
    )
    assert "output tokens 46.2k, 90 % interval 4" in said
    assert "from 240 results" in said
    results = tmp_path / "results.jsonl"
    told = answer("replay", plan, "--already", sample, "-o", results)
    assert (told["already_done"], told["finished"]) == (240, 360)
    answers = lines_of(results)
    assert [line["custom_id"] for line in answers] == [f"r{row}" for row in range(600)]
    usage = [line["response"]["body"]["usage"]["completion_tokens"] for line in answers]
    assert usage == [77] * 600


def test_the_choice_is_spread_and_repeatable(job: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        answer("sample", job, "--engine", "sim", "-o", tmp_path / name)
    chosen = [line["custom_id"] for line in lines_of(tmp_path / "one")]
    assert chosen == [line["custom_id"] for line in lines_of(tmp_path / "two")]
    assert len(chosen) == 200
    assert {int(name[1:]) % 2 for name in chosen} == {0, 1}


def test_options_that_make_no_sense_are_one_line(job: Path, tmp_path: Path) -> None:
    output = tmp_path / "sample.jsonl"
    refused = run("sample", job, "--engine", "vlm", "-o", output)
    assert refused.exit_code == 2
    assert "did you mean 'vllm'" in error_line(refused)
    refused = run("sample", job, "--engine", "vllm", "-o", output)
    assert refused.exit_code == 1
    assert "vLLM needs a model to run a sample with; give --model NAME" in error_line(refused)
    refused = run("sample", job, "--engine", "sim", "--fraction", "0", "-o", output)
    assert refused.exit_code == 2
    known = tmp_path / "known.jsonl"
    known.write_text('{"prompt": "a", "output_tokens": 3}\n')
    refused = run("sample", known, "--engine", "sim", "-o", output)
    assert refused.exit_code == 1
    assert "nothing to sample" in error_line(refused)
    assert not output.exists()


def test_what_is_done_already_neither_teaches_nor_holds_up_the_rest(tmp_path: Path) -> None:
    """Long outputs among short ones; a few are done, and the rest runs as well as planned."""
    job, plan, first = tmp_path / "job.jsonl", tmp_path / "plan.arrow", tmp_path / "first.jsonl"
    lines = [
        {"id": f"r{row}", "prompt": f"{row} tell me more " * 40, "output_tokens": length}
        for row, length in enumerate([20, 30, 1500] * 100)
    ]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer("plan", job, "--gpu", "a100-80g", "--kv-tokens", "64000", "-o", plan)
    whole = answer("replay", plan, "-o", first)
    few = tmp_path / "few.jsonl"
    few.write_text("".join(first.read_text().splitlines(keepends=True)[:30]))
    rest = answer("replay", plan, "--already", few, "-o", tmp_path / "rest.jsonl")
    assert rest["already_done"] == 30
    assert rest["steps"] <= 1.05 * whole["steps"]


@pytest.mark.parametrize("text", ["", '{"id": "r1", "prompt": "x"}\n', "{}\n", "not json\n"])
def test_what_is_no_result_is_refused_and_leaves_no_journal(
    job: Path, tmp_path: Path, text: str
) -> None:
    plan, results, wrong = tmp_path / "p.arrow", tmp_path / "r.jsonl", tmp_path / "wrong.jsonl"
    answer("plan", job, "--gpu", "l4", "-o", plan)
    wrong.write_text(text)
    refused = run("replay", plan, "--already", wrong, "-o", results)
    assert refused.exit_code == 1
    assert "wrong.jsonl" in error_line(refused)
    assert list(tmp_path.glob("r.jsonl*")) == []
