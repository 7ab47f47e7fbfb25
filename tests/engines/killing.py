"""A replay on a real engine is killed and goes on."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blendplan.planfile.plan import Plan
from tests.replaying.replay_jobs import assert_each_once


def assert_kills_lose_and_repeat_nothing(
    made: Plan,
    engine: str,
    model: Path,
    arguments: Mapping[str, Any],
    folder: Path,
    kills: Iterable[int],
) -> None:
    """Kill a replay again and again, and let it come to its end.

    Args:
        made: the plan.
        engine, model, arguments: what it is replayed on.
        folder: for its files.
        kills: how many more answers are waited for before each kill.
    """
    made.write(folder / "plan.arrow")
    output = folder / "results.jsonl"
    journal = output.with_name("results.jsonl.journal")
    words = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
    command = [sys.executable, "-m", "blendplan", "replay", str(folder / "plan.arrow")]
    command += ["--engine", engine, "--model", str(model), "-o", str(output), "--resume"]
    command += [word for argument in words for word in ("--engine-arg", argument)]
    written: set[bytes] = set()
    for more in kills:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        before = len(written)
        while process.poll() is None and len(_answers(journal)) < before + more:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        now = _answers(journal) | _answers(output)
        assert written <= now
        assert len(now) > before or len(now) == len(made)
        written = now
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["already_done"], told["finished"]) == (len(written), len(made) - len(written))
    assert written <= _answers(output)
    output.with_name("results.jsonl.engine.log").unlink(missing_ok=True)
    assert_each_once(made, output)


def _answers(path: Path) -> set[bytes]:
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    return {line for line in whole.split(b"\n") if b'"custom_id"' in line}
