"""Tiny models of every kind that vLLM's CPU build runs: their layouts, capacities and steps.

What is compared is the whole way: a ``config.json`` read here, and the same one started and run by
vLLM. Steps are compared as in `tests.simulator.test_vllm_recordings`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import KvLayout, kv_layout
from blendplan.hardware.lookup import model_spec
from blendplan.planning.planner import plan
from blendplan.replaying.run import replay
from blendplan.requests.read import read_requests
from tests.engines.tiny_kinds import KINDS
from tests.replaying.replay_jobs import write_requests_file
from tests.simulator import test_vllm_recordings as earlier

# Steps of those that start, but lack kernels on a CPU, are compared without a model alone; with
# latent attention, vLLM has neither prefix caching nor chunks there.
STARTED = ("jamba", "granite_hybrid", "deepseek_v2")
# How many times the blocks of a model with one group each gets: as many as it has groups, but for
# long blocks.
RUN = {"gemma3": 6, "gpt_oss": 2, "mistral": 1, "olmo3": 4, "llama4": 4, "qwen3_next": 1}
WORKLOADS = ("pressure", "mixed100")
LONG_BLOCKS = {"qwen3_next": ("growing", "mixed100")}  # the others fit into a block of a request
BLOCK_TOKENS = 32  # the smallest that vLLM's CPU attention takes; its latent attention takes 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each kind, without weights."""
    models = tmp_path_factory.mktemp("kinds")
    for name, config in KINDS.items():
        (models / name).mkdir()
        (models / name / "config.json").write_text(json.dumps(config))
    return models


def recorded(model: Path, names: list[str], times: int = 1) -> dict[str, Any]:
    """Workloads run through vLLM in a process of its own, with so many times their blocks."""
    script = Path(__file__).with_name("record_vllm_steps.py")
    done = subprocess.run(
        [sys.executable, script, model, model, *(f"{name}:{times}" for name in names)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: json.loads((model / f"{name}.json").read_text()) for name in names}


@pytest.fixture(scope="module", params=RUN)
def recordings(request: pytest.FixtureRequest, vllm: None, folder: Path) -> dict[str, Any]:
    """All workloads of a kind, run through vLLM in a process of its own."""
    model = folder / request.param
    workloads = LONG_BLOCKS.get(request.param, WORKLOADS)
    names = [*workloads, *(f"async-{name}" for name in workloads)]
    return recorded(model, names, RUN[request.param]) | {"model": model}


def layout_of(model: Path, run: dict[str, Any]) -> KvLayout:
    """What is made of the model here."""
    layers = kv_layers(model_spec(model))
    layout = kv_layout(layers, run.get("block_size", BLOCK_TOKENS))
    in_flight = run["max_num_batched_tokens"] * (1 + run["async_scheduling"])
    return layout.limited(in_flight_tokens=in_flight, max_model_len=run["max_model_len"])


def compare_layouts(model: Path, run: dict[str, Any]) -> None:
    """Groups, blocks of a GiB and the logged size."""
    layout = layout_of(model, run)
    theirs = earlier.layout_of(run)
    own = {"layers": 1, "page_bytes": 1}
    # Of states, vLLM has another limit when it starts than when it admits.
    limits = [{"most_blocks": 0} if group.kind == "state" else {} for group in layout.groups]
    ours = [
        group.__dict__ | own | limit for group, limit in zip(layout.groups, limits, strict=True)
    ]
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


def test_groups_and_capacity_are_the_engines(recordings: dict[str, Any]) -> None:
    for name in ("mixed100", "async-mixed100"):
        compare_layouts(recordings["model"], recordings[name])


@pytest.mark.parametrize("kind", STARTED)
def test_a_model_with_states_starts_with_these_groups(vllm: None, folder: Path, kind: str) -> None:
    compare_layouts(folder / kind, recorded(folder / kind, ["start"])["start"])


def test_steps_are_the_engines(recordings: dict[str, Any]) -> None:
    preempted = 0
    for run in (recordings[name] for name in recordings if name != "model"):
        earlier.test_slow_engine_takes_the_recorded_steps(run)
        earlier.test_simulated_engine_takes_the_recorded_steps(run)
        preempted += sum(len(step["preempted"]) for step in run["steps"])
    assert preempted > 10


@pytest.mark.parametrize("kind", ["gpt_oss", "mistral"])
def test_a_replay_takes_the_planned_steps(
    vllm: None, folder: Path, tmp_path: Path, kind: str
) -> None:
    """The whole way: the live policy in vLLM's scheduler sees the memory of every group."""
    blocks = 48 * RUN[kind]
    made = plan(
        read_requests(write_requests_file(tmp_path / "requests.jsonl", 60)),
        gpu="l4",
        model=str(folder / kind),
        max_num_batched_tokens=128,
        max_model_len=1024,
        kv_tokens=blocks * BLOCK_TOKENS,
        block_size=BLOCK_TOKENS,
        max_num_seqs=16,
    )
    arguments = {
        "load_format": "dummy",
        "enforce_eager": True,
        "num_gpu_blocks_override": blocks + 1,  # one is a placeholder
        "gpu_memory_utilization": 0.1,
        "served_model_name": ["tiny", "llama-3.1-8b"],
    }
    logs = [tmp_path / "vllm.parquet", tmp_path / "simulated.parquet"]
    told: list[str] = []
    replay(
        made,
        "vllm",
        tmp_path / "results.jsonl",
        model=str(folder / kind),
        engine_args=arguments,
        step_log=logs[0],
        remark=told.append,
    )
    assert told == []  # same capacity, block size and limits as planned
    replay(made, step_log=logs[1])
    same = ["prefill_tokens", "decode_tokens", "kv_tokens_read", "sequences", "prefill_pairs"]
    same += ["kv_tokens_used", "running"]
    steps, planned = (pq.read_table(log).select(same) for log in logs)
    assert steps.equals(planned)
