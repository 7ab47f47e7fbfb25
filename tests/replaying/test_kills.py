"""Real processes killed at random moments: nothing is lost, nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import blendplan
from blendplan.planfile.plan import Plan
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file

KILLS = 200
# The command, waiting in the midst of the run for a line on standard input.
PAUSING = """
import sys
from blendplan.cli import main
from blendplan.engines.simulated import SimulatedEngine
take_step, taken = SimulatedEngine._step, []
def step(*arguments):
    taken.append(1)
    if len(taken) == 60:
        print("here", flush=True)
        sys.stdin.readline()
    return take_step(*arguments)
SimulatedEngine._step = step
main()
"""


class Sessions:
    """Starts sessions of a replay and kills them."""

    def __init__(self, plan_file: Path) -> None:
        sources = Path(blendplan.__file__).parent.parent
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.replaying.replay_child", str(plan_file)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(sources)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._number = 0

    def run(self, output: Path, order: str, *, kill_after_s: float | None) -> int:
        """Exit status of a session; minus the signal's number where it was killed."""
        self._number += 1
        asked = {"number": self._number, "output": str(output), "order": order}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        pid = self._answer()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self._answer()

    def close(self) -> None:
        self._server.communicate()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of a few hundred requests."""
    folder = tmp_path_factory.mktemp("kills")
    job = write_requests_file(folder / "requests.jsonl", 200, answers=3)
    made = small_plan(job, policy="blend")
    made.write(folder / "plan.arrow")
    return folder / "plan.arrow"


@pytest.fixture(scope="module")
def sessions(plan_file: Path) -> Iterator[Sessions]:
    """What starts them."""
    started = Sessions(plan_file)
    yield started
    started.close()


def whole_lines(path: Path) -> set[str]:
    """What a killed session had written."""
    if not path.exists():
        return set()
    if path.suffix == ".parquet":
        return {json.dumps(line) for line in lines_of(path)}
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].split(b"\n")
    return {json.dumps(json.loads(line)) for line in lines if b'"custom_id"' in line}


@pytest.mark.parametrize(
    ("order", "kind"), [("input", "jsonl"), ("finish", "jsonl"), ("input", "parquet")]
)
def test_killed_sessions_lose_and_repeat_nothing(
    sessions: Sessions, plan_file: Path, tmp_path: Path, order: str, kind: str
) -> None:
    made = Plan.read(plan_file)
    rng = np.random.default_rng(11)
    for name in ("first", "second"):  # the first one waits for the server to be ready
        started_s = time.perf_counter()
        assert sessions.run(tmp_path / f"{name}.{kind}", order, kill_after_s=None) == 0
        whole_s = time.perf_counter() - started_s
    kills = runs = survivors = 0
    while kills < KILLS // 3:
        runs += 1
        output = tmp_path / str(runs) / f"results.{kind}"
        output.parent.mkdir()
        journal = output.with_name(output.name + ".journal")
        written: set[str] = set()
        while status := sessions.run(output, order, kill_after_s=whole_s * rng.uniform(0, 1)):
            assert status == -signal.SIGKILL
            kills += 1
            now = whole_lines(journal) | whole_lines(output)
            assert written <= now, "a line that was written is gone"
            written = now
            # The machine may be faster or slower by now.
            whole_s *= 1.0 if written else 1.1
        whole_s *= 1.0 if written else 0.9
        final = whole_lines(output)
        assert written <= final
        survivors += len(written)
        assert_each_once(made, output, in_order=order == "input")
    print(
        f"{order}, {kind}: {kills} kills in {runs} runs, {survivors} answers survived, "
        "0 lost, 0 twice"
    )
    assert survivors > kills


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    plan_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """One signal to the command; then the rest with --resume."""
    made = Plan.read(plan_file)
    requests = made.metadata["requests"]
    output = tmp_path / "results.jsonl"
    words = ["replay", str(plan_file), "-o", str(output)]
    journal = output.with_name("results.jsonl.journal")
    environment = {**os.environ, "PYTHONPATH": str(Path(blendplan.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSING, *words],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, told = process.communicate("\n", timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "error: interrupted; --resume continues the run"
    done = len(whole_lines(journal))
    assert 3 <= done < requests

    finished = subprocess.run(
        [sys.executable, "-m", "blendplan", *words, "--resume", "--json"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    told_json = json.loads(finished.stdout)
    assert told_json["already_done"] == done
    assert told_json["finished"] == requests - done
    assert_each_once(made, output)
    assert len(lines_of(output)) == requests
