"""A proof on the real vLLM, on a CPU: the whole path, small."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from blendplan.proving.parts.runs import ORDERS, WORKLOADS

KV_TOKENS = 3072
# One engine runs both.
STEP_TOKENS = (64, 256)
REPEATS = 2


def prove(model: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    limits = ("--kv-tokens", str(KV_TOKENS), "--max-num-seqs", "16", "--requests", "60")
    arguments = (
        *("--max-num-batched-tokens", ",".join(map(str, STEP_TOKENS))),
        *("--repeats", str(REPEATS)),
    )
    return subprocess.run(
        [
            *(sys.executable, "-m", "blendplan", "prove", "--engine", "vllm"),
            *("--model", str(model), "-o", str(folder), *limits, *arguments, *words),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture(scope="module")
def folder(
    vllm: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A proof that was cut short by its time, and then continued."""
    folder = tmp_path_factory.mktemp("proofs") / "proof"
    cut = prove(tiny_model, folder, "--minutes", "0.01")
    assert cut.returncode == 0, cut.stderr
    assert "the same command goes on" in cut.stderr
    done = prove(tiny_model, folder, "--minutes", "20")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def found(folder: tuple[Path, Any]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder[0] / "proof.json").read_text())
    return values


def of(runs: Sequence[dict[str, Any]], *, stock: bool) -> list[dict[str, Any]]:
    return [run for run in runs if run["stock"] is stock and run["lengths"] == "known"]


def test_all_that_needs_no_gpu_is_measured(found: dict[str, Any]) -> None:
    states = {name: part["state"] for name, part in found["parts"].items()}
    gpu_only = dict.fromkeys(("kernels", "graphs", "overlap"), "skipped")
    assert states == gpu_only | {"steps": "done", "runs": "done"}
    tried = len(STEP_TOKENS) * sum(order.lengths == "known" for order in ORDERS)
    assert len(found["runs"]) == len(WORKLOADS) * (tried + len(ORDERS) * REPEATS)
    assert {run["batched_tokens"] for run in found["runs"]} == set(STEP_TOKENS)
    assert {run["failed"] for run in found["runs"]} == {0}


def test_planned_runs_take_the_planned_steps(found: dict[str, Any]) -> None:
    """But where lengths are not known, which the run learns in its own time."""
    for run in of(found["runs"], stock=False):
        assert run["steps"] == run["planned_steps"]
        assert run["preemptions"] == run["planned_preemptions"]
        assert run["prefix_sharing"] == pytest.approx(run["planned_prefix_sharing"])


def test_the_stock_engine_takes_the_steps_that_the_simulator_says(found: dict[str, Any]) -> None:
    """It begins with the requests that have come by then, as nobody makes it wait."""
    for run in of(found["runs"], stock=True):
        assert run["steps"] == pytest.approx(run["planned_steps"], rel=0.03)


def test_every_run_computes_the_same_answers(found: dict[str, Any]) -> None:
    for workload in WORKLOADS:
        tokens = {run["tokens"] for run in found["runs"] if run["workload"] == workload}
        assert len(tokens) == 1


def test_gains_are_of_repeats_side_by_side(found: dict[str, Any]) -> None:
    for workload in found["parts"]["runs"]["values"]["workloads"].values():
        assert set(workload["orders"]) == {order.name for order in ORDERS}
        for order in workload["orders"].values():
            assert len(order["measured_s"]) == REPEATS
            for gain in order["gain"].values():
                assert gain["least"] <= gain["most"]


def test_what_was_found_is_told_and_drawn(folder: tuple[Path, Any]) -> None:
    path, done = folder
    assert "predicted makespans are within 15 %" in done.stdout
    page = (path / "proof.html").read_text()
    assert page.index("What contradicts the model") < page.index("KV cache in use over time")
    assert "where the time went" in page


def test_the_profile_prices_further_plans(folder: tuple[Path, Any], tiny_model: Path) -> None:
    profile = folder[0] / "again.toml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "blendplan", "calibrate", "--proof", str(folder[0])),
            *("--model", str(tiny_model), "-o", str(profile)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert profile.read_text() == (folder[0] / "profile.toml").read_text().replace(
        'name = "proof"', 'name = "again"'
    )


def test_a_finished_proof_is_not_measured_again(
    folder: tuple[Path, Any], tiny_model: Path, found: dict[str, Any]
) -> None:
    again = prove(tiny_model, folder[0])
    assert again.returncode == 0
    assert json.loads((folder[0] / "proof.json").read_text())["runs"] == found["runs"]


def test_a_folder_of_another_proof_is_refused(folder: tuple[Path, Any], tiny_model: Path) -> None:
    other = prove(tiny_model, folder[0], "--seed", "7")
    assert other.returncode == 1
    assert other.stderr.strip().endswith(
        "holds another proof (seed changed since); give another -o, or move it away"
    )
