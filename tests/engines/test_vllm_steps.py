"""The simulated engine against the real vLLM, run here and now, step by step.

The comparisons are those of `tests.simulator.test_vllm_recordings`, which has recordings of an
earlier run.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulator import test_vllm_recordings as earlier

SYNCHRONOUS = (
    *("no_pressure", "sharing", "pressure", "chunked", "many", "answers", "many_answers"),
    *(f"mixed{seed}" for seed in range(100, 103)),
)
WORKLOADS = (*SYNCHRONOUS, *(f"async-{name}" for name in SYNCHRONOUS))


@pytest.fixture(scope="module")
def recordings(
    vllm: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """All workloads, run through vLLM in a process of its own."""
    folder = tmp_path_factory.mktemp("steps")
    script = Path(__file__).with_name("record_vllm_steps.py")
    done = subprocess.run(
        [sys.executable, script, tiny_model, folder, *WORKLOADS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in WORKLOADS}


@pytest.fixture(params=WORKLOADS)
def recorded(request: pytest.FixtureRequest, recordings: dict[str, Any]) -> Any:
    """One of them."""
    return recordings[request.param]


def test_the_slow_engine_takes_the_steps(recorded: dict[str, Any]) -> None:
    earlier.test_slow_engine_takes_the_recorded_steps(recorded)


def test_the_simulated_engine_takes_the_steps(recorded: dict[str, Any]) -> None:
    earlier.test_simulated_engine_takes_the_recorded_steps(recorded)


def test_the_recorded_runs_are_hard_enough(recordings: dict[str, Any]) -> None:
    preemptions = {
        name: sum(len(step["preempted"]) for step in run["steps"])
        for name, run in recordings.items()
    }
    assert preemptions["no_pressure"] == 0
    assert preemptions["pressure"] >= 10
    assert sum(preemptions.values()) >= 40
    longest = max(map(len, recordings["chunked"]["prompts"]))
    assert longest > 4 * recordings["chunked"]["max_num_batched_tokens"]
