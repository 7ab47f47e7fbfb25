"""What the command says of a replay, and of one that went on where another stopped."""

import signal
from pathlib import Path

import pytest

from blendplan.planfile.plan import Plan
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally
from blendplan.report.replayed import replayed_rows
from tests.cli.cli_runs import run
from tests.replaying.replay_jobs import lines_of, small_plan, write_requests_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A small plan."""
    job = write_requests_file(tmp_path_factory.mktemp("job") / "requests.jsonl")
    return small_plan(job, policy="dfs")


def rows_of(values: dict[str, object]) -> dict[str, str]:
    """The rows for a run with a results file."""
    return replayed_rows(values | {"output": "results.jsonl"})


def test_a_whole_run_stands_beside_its_plan(made: Plan) -> None:
    rows = rows_of(replay(made).as_dict())
    assert rows["requests"] == "40: 40 finished"
    for name in ("makespan", "throughput", "prefix sharing", "preemptions", "steps"):
        actual, planned = rows[name].split("; planned ")
        assert actual.startswith(planned)
    assert rows["results"] == "results.jsonl"


def test_a_session_is_not_compared_with_the_whole_plan(made: Plan, tmp_path: Path) -> None:
    output, asked = tmp_path / "results.jsonl", list[int]()

    def interrupt(tally: Tally) -> None:
        if tally.finished >= 5 and not asked:
            asked.append(tally.finished)
            signal.raise_signal(signal.SIGINT)

    replay(made, output=output, progress=interrupt)
    rows = rows_of(replay(made, output=output, resume=True).as_dict())
    assert rows["requests"].endswith("done before")
    assert "in this session; planned" in rows["makespan"]
    assert "planned" not in rows["steps"] + rows["preemptions"]


def test_nothing_to_run_takes_no_time(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    made.write(tmp_path / "plan.arrow")
    replay(made, output=output)
    again = replay(made, output=output, resume=True).as_dict()
    assert again["makespan_s"] is None
    assert set(rows_of(again)) == {"requests", "engine", "results"}
    result = run("replay", tmp_path / "plan.arrow", "-o", output, "--resume")
    assert result.exit_code == 0
    assert "makespan" not in result.stdout


def test_simulated_results_say_that_they_are(made: Plan, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    replay(made, output=output)
    for line in lines_of(output):
        fingerprint = line["response"]["body"]["system_fingerprint"]
        assert fingerprint.startswith("simulated by blendplan")
