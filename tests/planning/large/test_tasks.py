"""Where tasks run: in order, with the first error, and not after the process that wanted them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blendplan import BlendplanError, open_plan, plan_files
from blendplan.planfile.folder import MANIFEST
from blendplan.planning.large.tasks import LocalTasks
from tests.cli.cli_runs import start
from tests.planning.large.request_files import SMALL, lines, write_files


def _waited(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def _failing(number: int) -> int:
    if number > 1:
        time.sleep(0.2 if number == 2 else 0.0)
        raise BlendplanError(f"task {number}")
    return number


def _killed(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_the_first_error_wins(processes: int) -> None:
    with LocalTasks(processes) as tasks:
        waits = [0.1, 0.0, 0.05, 0.0]
        assert list(tasks.map(_waited, waits)) == waits
        with pytest.raises(BlendplanError, match="task 2"):
            list(tasks.map(_failing, range(6)))


def test_a_process_that_is_killed_is_one_line() -> None:
    with (
        pytest.raises(BlendplanError, match="ended without an answer"),
        LocalTasks(2) as tasks,
    ):
        list(tasks.map(_killed, range(4)))


def test_a_script_that_processes_run_anew_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from blendplan.planning.large.tasks import LocalTasks\n"
        "with LocalTasks(2) as tasks:\n"
        "    list(tasks.map(time.sleep, [0.0, 0.0]))\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "call this under if __name__ == '__main__', or with processes=1" in last


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from blendplan.planning.large.tasks import LocalTasks\n"
        "if __name__ == '__main__':\n"
        "    with LocalTasks(2) as tasks:\n"
        "        list(tasks.map(time.sleep, [0.0, 0.0]))\n"
        "        print(*tasks._pool._processes, flush=True)\n"
        "        list(tasks.map(time.sleep, [600, 600]))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(_runs(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_what_a_killed_planning_leaves_is_no_plan_and_is_made_again(tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", lines(300), 3)
    folder = tmp_path / "plan"
    options = ("--gpu", "l4", "--kv-tokens", "4000", "--max-num-seqs", "16", "--overlap", "2")
    words = ("plan", files, *options, "--effort", "0", "--processes", "1", "-o", f"{folder}/")
    process = start(*words)
    deadline = time.monotonic() + 120
    while not list(folder.glob(".work-*/run-*.arrow")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    if process.returncode == -signal.SIGKILL and not (folder / MANIFEST).exists():
        with pytest.raises(BlendplanError, match="not finished"):
            open_plan(folder)
    made = plan_files(files, folder, processes=1, **SMALL)
    made.verify()
    assert {file.name for file in folder.iterdir()} == {MANIFEST, made.files[0].file}
