"""`trial` from the command line: shaped rows, its answer, its page, and what it refuses."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.cli_runs import answer, error_line, run, write_job

MACHINE = ("--engine", "sim", "--gpu", "l4", "--kv-tokens", "4096", "--effort", "0")


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("job") / "requests.jsonl", 90)


@pytest.fixture(scope="module")
def tried(requests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trial."""
    folder = tmp_path_factory.mktemp("trial") / "t"
    result = run("trial", requests, *MACHINE, "--requests", "45", "-o", folder)
    assert result.exit_code == 0, result.stderr
    (folder.parent / "said.txt").write_text(result.stdout)
    return folder


def test_the_answer_says_what_was_gained_and_what_to_do_next(tried: Path) -> None:
    said = (tried.parent / "said.txt").read_text()
    values = json.loads((tried / "trial.json").read_text())
    gained = f"{values['gain']['throughput']:+.1%}".replace("%", " %")
    assert re.search(rf"does it help +[a-z ,]+: {re.escape(gained)} tok", said)
    assert re.search(r"prices +right: steps took .* priced", said)
    assert re.search(r"all 90 requests +.* by the fitted prices, simulated: .* over input", said)
    assert "45 of 90 requests" in said
    words = " ".join(said.split())
    assert "profile.toml, for --gpu" in words
    assert "planned.jsonl, for replay --already" in words


def test_the_page_needs_nothing_else(tried: Path) -> None:
    page = (tried / "trial.html").read_text()
    assert page.count("<svg ") == 2
    assert "Does a plan help?" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)


def test_json_holds_the_figures_and_not_the_courses(requests: Path, tried: Path) -> None:
    found = answer("trial", requests, *MACHINE, "--requests", "45", "-o", tried)
    values = json.loads((tried / "trial.json").read_text())
    assert found["gain"] == values["gain"]
    assert found["folder"] == str(tried)
    assert "runs" not in found


def test_the_profile_and_the_answers_serve_the_job(
    requests: Path, tried: Path, tmp_path: Path
) -> None:
    """As the help says."""
    plan, results = tmp_path / "plan.arrow", tmp_path / "results.jsonl"
    planned = answer("plan", requests, "--gpu", tried / "profile.toml", *MACHINE[4:], "-o", plan)
    whole = json.loads((tried / "trial.json").read_text())["whole"]["policies"]["blend"]
    assert planned["predicted"]["makespan_s"] == pytest.approx(whole["makespan_s"])
    done = answer("replay", plan, "--already", tried / "planned.jsonl", "-o", results)
    assert (done["already_done"], done["finished"]) == (45, 45)


def test_rows_of_data_are_shaped_as_for_run(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("key,text\n" + "".join(f"{n},{'word ' * (n % 9)}{n}\n" for n in range(40)))
    words = ("--template", "Say: {text}", "--id-column", "key", "--max-tokens", "9")
    folder = tmp_path / "t"
    found = answer(
        "trial", rows, *words, *MACHINE, "--requests", "20", "--limit", "30", "-o", folder
    )
    assert found["excerpt"]["requests"] == {"whole": 30, "excerpt": 20}
    lines = [json.loads(line) for line in (folder / "planned.jsonl").read_text().splitlines()]
    assert {line["custom_id"] for line in lines} <= {str(number) for number in range(30)}
    assert all(line["response"]["body"]["usage"]["completion_tokens"] <= 9 for line in lines)


def test_what_is_refused_is_said_in_one_line(requests: Path, tried: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    words = ("trial", requests, "-o", folder)
    assert "missing option '--gpu'" in error_line(run(*words, "--engine", "sim"))
    assert "missing option '--engine'" in error_line(run(*words, "--gpu", "l4"))
    assert "unknown GPU" in error_line(run(*words, "--engine", "sim", "--gpu", "l44"))
    assert "takes no engine arguments" in error_line(run(*words, *MACHINE, "--", "--seed", "1"))
    if find_spec("vllm") is None:
        line = error_line(run(*words, "--engine", "vllm", "--gpu", "l4"))
        assert "pip install 'blendplan[vllm]'" in line
    line = error_line(run("trial", requests, *MACHINE, "-o", tried, "--quiet"))
    assert "holds another trial (--requests, the plans changed since)" in line
    line = error_line(run("trial", requests, *MACHINE, "-o", requests, "--quiet"))
    assert "is a file; give a folder" in line
    assert not folder.exists()
