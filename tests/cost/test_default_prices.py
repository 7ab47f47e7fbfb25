"""Calibrated prices are the default; plans say where they come from, and carry a profile."""

import json
from pathlib import Path

import pytest

from blendplan import Plan, plan, simulate
from blendplan.cost.machine import machine
from blendplan.hardware.lookup import gpu_from_text, gpu_names, gpu_spec
from blendplan.hardware.profile import catalogued, profile_text
from blendplan.requests.in_memory import requests_from_lists
from tests.cli.cli_runs import answer, run

REQUESTS = requests_from_lists([[1, 2, 3], [1, 2, 4], [7] * 40], output_tokens=[4, 30, 9])
CALIBRATED = ("a100-80g", "h100-80g", "h200", "b200", "l40s")
# A machine of one's own: a price list as `calibrate --steps` writes it, for Llama-3.1-8B.
PROFILE = """
base = "l4"
name = "mine"
[fitted]
source = "test"
[fitted.steps]
model = "llama-3.1-8b"
linear_parameters = 6979321856
tp = 1
knots_tokens = [0.0]
token_s = [0.0]
step_s = 0.5
sequence_s = 0.0
kv_token_s = 0.0
pair_s = 0.0
stall_share = 0.0
"""


def test_prices_are_calibrated_unless_asked_otherwise() -> None:
    made = plan(REQUESTS, gpu="a100-80g")
    assert made.metadata["cost_model"]["name"] == "calibrated"
    assert made.metadata["cost_model"]["note"] == ""
    paper = plan(REQUESTS, gpu="a100-80g", cost="datasheet")
    assert paper.metadata["cost_model"]["name"] == "datasheet"
    assert made.metadata["predicted"]["makespan_s"] > paper.metadata["predicted"]["makespan_s"]


@pytest.mark.parametrize("name", gpu_names())
def test_gpus_without_measurements_are_named(name: str) -> None:
    note = machine(name, "phi-3-mini").costs.note
    assert gpu_spec(name).calibrated == (name in CALIBRATED)
    if name in CALIBRATED:
        assert note == ""
    else:
        assert note.startswith(f"{name} is not calibrated: stated efficiencies set the times")
    assert machine(name, "phi-3-mini", cost="datasheet").costs.note == ""


def test_operators_without_measurements_are_named() -> None:
    note = machine("a100-80g", kv_dtype="fp8").costs.note
    assert note.startswith("a100-80g is not calibrated for decode attention of this model's")
    assert machine("h200", kv_dtype="fp8", tp=2).costs.note == ""


def test_the_command_line_says_so(tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"prompt_token_ids": [1, 2, 3], "output_tokens": 4}\n')
    result = run("plan", requests, "--gpu", "l4", "--model", "phi-3-mini", "-o", tmp_path / "p")
    assert [line for line in result.stderr.splitlines() if "not calibrated" in line]
    assert "calibrated prices" in result.stdout
    inspected = run("inspect", tmp_path / "p").stdout
    assert "l4 is not calibrated" in inspected
    result = run("plan", requests, "--gpu", "a100-80g", "-o", tmp_path / "p")
    assert "not calibrated" not in result.stderr + result.stdout


def test_the_catalogue_marks_them() -> None:
    listed = answer("gpus")["gpus"]
    assert {gpu["name"] for gpu in listed if gpu["calibrated"]} == set(CALIBRATED)
    marked = [line for line in run("gpus").stdout.splitlines() if line.split()[-1:] == ["no"]]
    assert len(marked) == len(gpu_names()) - len(CALIBRATED)


def test_a_plan_carries_the_profile_that_it_was_made_for(tmp_path: Path) -> None:
    """Else the simulated engine would look up the name, and find another GPU or none."""
    (tmp_path / "mine.toml").write_text(PROFILE)
    made = plan(REQUESTS, gpu=tmp_path / "mine.toml")
    made.write(tmp_path / "plan.arrow")
    (tmp_path / "mine.toml").unlink()
    again = Plan.read(tmp_path / "plan.arrow")
    again.verify()
    assert again.metadata["gpu"] == "mine"
    assert made.metadata["predicted"]["makespan_s"] == pytest.approx(30 * 0.5)
    assert simulate(again).makespan_s == made.metadata["predicted"]["makespan_s"]


def test_a_plan_carries_the_shape_of_a_model_of_ones_own(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
        "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    made = plan(REQUESTS, gpu="h200", model=tmp_path / "own", kv_tokens=4096)
    made.write(tmp_path / "plan.arrow")
    (tmp_path / "own" / "config.json").unlink()
    again = Plan.read(tmp_path / "plan.arrow")
    assert simulate(again).makespan_s == made.metadata["predicted"]["makespan_s"]


def test_a_plan_for_a_gpu_of_the_catalogue_carries_its_name_only() -> None:
    assert plan(REQUESTS, gpu="h200").metadata["gpu_profile"] is None


@pytest.mark.parametrize("name", gpu_names())
def test_a_gpu_survives_being_written_down(name: str) -> None:
    gpu = gpu_spec(name)
    assert catalogued(gpu)
    assert gpu_from_text(profile_text(gpu), "text", "other") == gpu


@pytest.mark.parametrize("cost", ["calibrated", "datasheet"])
def test_kv_elements_of_8_bits_halve_what_is_read(cost: str) -> None:
    wide, narrow = (
        machine("h200", cost=cost, kv_dtype=kv_dtype).table.decode_attention[0]
        for kv_dtype in ("auto", "fp8")
    )
    assert 0.4 * wide < narrow < 0.8 * wide
    made = plan(REQUESTS, gpu="h200", cost=cost, kv_dtype="fp8")
    assert simulate(made).makespan_s == made.metadata["predicted"]["makespan_s"]


def test_parameters_of_every_price_list_are_json() -> None:
    for gpu in ("a100-80g", "l4"):
        parameters = machine(gpu, "phi-3-mini").costs.parameters()
        assert json.loads(json.dumps(parameters, allow_nan=False)) == parameters
