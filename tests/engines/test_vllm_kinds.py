"""Tiny models of every kind that vLLM's CPU build runs: their layouts, capacities and steps.

What is compared is the whole way: a ``config.json`` read here, and the same one started and run by
vLLM. Steps are compared as in `tests.simulator.test_vllm_recordings`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import KvLayout, kv_layout
from blendplan.hardware.lookup import model_spec
from tests.engines.tiny_kinds import KINDS
from tests.simulator import test_vllm_recordings as earlier

# Those that need kernels which the CPU build lacks are compared without a model alone.
RUN = ("gemma3", "gpt_oss", "mistral", "olmo3", "deepseek_v2")
WORKLOADS = ("sharing", "pressure", "chunked", "mixed100")
BLOCK_TOKENS = 32  # the smallest that vLLM's CPU attention takes; its latent attention takes 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each kind, without weights."""
    models = tmp_path_factory.mktemp("kinds")
    for name, config in KINDS.items():
        (models / name).mkdir()
        (models / name / "config.json").write_text(json.dumps(config))
    return models


@pytest.fixture(scope="module", params=RUN)
def recordings(request: pytest.FixtureRequest, vllm: None, folder: Path) -> dict[str, Any]:
    """All workloads of a kind, run through vLLM in a process of its own."""
    model = folder / request.param
    names = [*WORKLOADS, *(f"async-{name}" for name in WORKLOADS)]
    groups = len(kv_layout(kv_layers(model_spec(model))).groups)
    script = Path(__file__).with_name("record_vllm_steps.py")
    done = subprocess.run(
        [sys.executable, script, model, model, *(f"{name}:{groups}" for name in names)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: json.loads((model / f"{name}.json").read_text()) for name in names} | {
        "model": model
    }


def layout_of(recordings: dict[str, Any], run: dict[str, Any]) -> KvLayout:
    """What is made of the model here."""
    layers = kv_layers(model_spec(recordings["model"]))
    layout = kv_layout(layers, run.get("block_size", BLOCK_TOKENS))
    in_flight = run["max_num_batched_tokens"] * (1 + run["async_scheduling"])
    return layout.limited(in_flight_tokens=in_flight, max_model_len=run["max_model_len"])


def test_groups_and_capacity_are_the_engines(recordings: dict[str, Any]) -> None:
    for name in ("sharing", "async-sharing"):
        run = recordings[name]
        layout = layout_of(recordings, run)
        theirs = earlier.layout_of(run)
        ours = [{**group.__dict__, "layers": 1, "page_bytes": 1} for group in layout.groups]
        assert ours == [group.__dict__ for group in theirs.groups]
        capacity = run["capacity"]
        assert [group.layers for group in layout.groups] == capacity["layers"]
        assert 2**30 // layout.bytes_per_block == capacity["blocks"]
        needed = sum(
            group.most_blocks or -(-run["max_model_len"] // group.block_tokens)
            for group in layout.groups
        )
        logged = int(capacity["blocks"] / needed * run["max_model_len"])
        assert logged == pytest.approx(capacity["logged_tokens"], abs=1)


def test_steps_are_the_engines(recordings: dict[str, Any]) -> None:
    preempted = 0
    for name in (*WORKLOADS, *(f"async-{name}" for name in WORKLOADS)):
        earlier.test_slow_engine_takes_the_recorded_steps(recordings[name])
        earlier.test_simulated_engine_takes_the_recorded_steps(recordings[name])
        preempted += sum(len(step["preempted"]) for step in recordings[name]["steps"])
    assert preempted > 10
