"""The command as a process: what it imports, signals, pipes, full disks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blendplan.cli.compilation import NOTICE
from tests.cli.cli_runs import SOURCES, start, write_job

# The command with one of its inner functions replaced by one that reports and then hangs. It sleeps
# for moments: a signal that comes between Python's last look and the sleep is seen after it.
HANGING = """
import sys, time
{patch}
from blendplan.cli import main
main()
"""
HANG_IN_SEARCH = HANGING.format(
    patch="""
import blendplan.planning.search
def hang(*_, progress, **__):
    sys.stdout.write("here\\n")
    sys.stdout.flush()
    while True:
        time.sleep(0.01)
        progress(0, 60)
blendplan.planning.search.simulate_run = hang
"""
)
HANG_IN_SIMULATION = HANGING.format(
    patch="""
import blendplan.planning.run_policy
def hang(*_, **__):
    print("here", flush=True)
    while True:
        time.sleep(0.01)
blendplan.planning.run_policy.simulate_run = hang
"""
)
HANG_WHILE_WRITING = HANGING.format(
    patch="""
import blendplan.planfile.plan
def hang(*_):
    print("here", flush=True)
    while True:
        time.sleep(0.01)
original = blendplan.planfile.plan.pa.ipc.new_file
class Writer:
    def __init__(self, sink, schema, **options):
        self.inner = original(sink, schema, **options)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.inner.close()
    write_batch = hang
blendplan.planfile.plan.pa.ipc.new_file = Writer
"""
)


HANGS = {
    "search": HANG_IN_SEARCH,
    "simulation": HANG_IN_SIMULATION,
    "writing": HANG_WHILE_WRITING,
}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("job") / "requests.jsonl")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "--help"], ["pln"], ["plan", "r", "--gpu", "a101"]]
)
def test_help_and_usage_errors_import_next_to_nothing(arguments: list[str]) -> None:
    script = """
import atexit, sys
heavy = {"numpy", "numba", "pyarrow", "scipy", "networkx", "rich"}
atexit.register(lambda: print("\\nheavy:", *sorted(heavy & set(sys.modules))))
from blendplan.cli import main
main()
"""
    output, _ = start(*arguments, script=script).communicate(timeout=60)
    assert output.splitlines()[-1] == "heavy:"


def test_module_and_json_in_a_process_of_its_own(job: Path, tmp_path: Path) -> None:
    output = tmp_path / "plan.arrow"
    process = start("plan", job, "--gpu", "a100-80g", "-o", output, "--json")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["requests"] == 60
    assert stdout.count("\n") == 1
    assert set(stderr.splitlines()) <= {NOTICE}


def test_an_error_has_its_exit_code_and_no_traceback(tmp_path: Path) -> None:
    process = start("plan", tmp_path / "none", "--gpu", "h200", "-o", tmp_path / "p")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", HANGS)
def test_an_interrupted_plan_leaves_nothing_behind(
    job: Path, tmp_path: Path, where: str, number: int
) -> None:
    output = tmp_path / "plan.arrow"
    output.write_text("an earlier plan")
    # A single set of settings is not searched.
    effort = 0 if where == "simulation" else 1
    words = ("plan", job, "--gpu", "a100-80g", "-o", output, "--effort", str(effort))
    process = start(*words, script=HANGS[where])
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    if where == "writing":
        assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.arrow"]
    assert output.read_text() == "an earlier plan"


def test_interrupted_while_reading_from_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "requests.jsonl"
    os.mkfifo(pipe)
    process = start("plan", pipe, "--gpu", "a100-80g", "-o", tmp_path / "plan.arrow")
    writing_end = _open_when_read(pipe, process)
    os.write(writing_end, b'{"prompt_token_ids": [1]}\n')
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    os.close(writing_end)
    assert (process.returncode, stderr) == (130, "error: interrupted\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["requests.jsonl"]


def _open_when_read(pipe: Path, process: subprocess.Popen[str]) -> int:
    """The writing end of a pipe, as soon as the process reads from it."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    pytest.fail(f"ended before it read: {process.communicate()}")


def test_a_reader_that_leaves_is_no_error() -> None:
    script = f"exec {sys.executable} -m blendplan models --json | true; exit ${{PIPESTATUS[0]}}"
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1)  # 0 when all was written before the reader left
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["gpus"], ["gpus", "--json"], ["--help"]])
def test_full_standard_output_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device)
        done = subprocess.run(
            [sys.executable, "-m", "blendplan", *words],
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on device")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[list[str]]:
    """A command prefix under which the folder ``disk`` is a file system of a few kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=16k none '{disk}' && exec \"$@\""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to mount a small file system with")
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"may not mount a small file system: {tried.stderr.strip()}")
    yield prefix


def test_a_full_disk_is_one_line_and_leaves_nothing(
    full_disk: list[str], job: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big.jsonl"
    with big.open("w") as file:
        for index in range(300):
            ids = [(index * 7919 + at * at * 31) % 50_000 for at in range(300)]
            file.write(json.dumps({"prompt_token_ids": ids, "output_tokens": 5}) + "\n")
    output = tmp_path / "disk" / "plan.arrow"
    plan = f"'{sys.executable}' -m blendplan plan '{big}' --gpu h200 -o '{output}'"
    script = f"{plan}; echo code $?; ls -A '{output.parent}'"
    done = subprocess.run(
        [*full_disk, "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["code 1"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "the disk is full" in lines[0]
    assert str(output) in lines[0]
    assert "Traceback" not in done.stderr
