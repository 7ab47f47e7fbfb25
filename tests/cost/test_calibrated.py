"""The calibrated cost model: steps add up from operators, and stay near published measurements."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blendplan.cost.calibrated import calibrated_cost
from blendplan.cost.datasheet import datasheet_cost
from blendplan.cost.operators.of_gpu import operators
from blendplan.cost.registry import cost_model
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_names, gpu_spec, model_names, model_spec
from blendplan.hardware.model import linear_shapes
from tests.cost.weight_bits import with_weight_bits

LLAMA, A100 = model_spec("llama-3.1-8b"), gpu_spec("a100-80g")
MEASURED = ("a100-80g", "h100-80g", "h200", "b200", "l40s")
ROOT = Path(__file__).parents[2]
DATA = os.environ.get("BLENDPLAN_DATA")
# Paper, table 1: batch, GEMM and attention of one layer in ms, contexts of 1,024 tokens.
TABLE_1 = ((512, 1.087, 1.317), (768, 1.537, 1.913), (1024, 2.005, 2.515))


@pytest.mark.parametrize(("batch", "gemm_ms", "attention_ms"), TABLE_1)
def test_table_1_of_the_paper(batch: int, gemm_ms: float, attention_ms: float) -> None:
    """GEMM within 5 % but at 768 tokens, where docs/accuracy.md says why; attention within 8 %."""
    used = operators(A100)
    gemm_s = sum(float(used.gemm.predict(batch, s.n, s.k)) for s in linear_shapes(LLAMA))
    assert 1e3 * gemm_s == pytest.approx(gemm_ms, rel=0.06 if batch == 768 else 0.05)
    attention_s = float(used.decode.predict(batch, 1024, 32, 8, 128))
    assert 1e3 * attention_s == pytest.approx(attention_ms, rel=0.08)


@pytest.mark.parametrize("name", gpu_names())
def test_measured_gpus_and_no_others_are_calibrated(name: str) -> None:
    assert gpu_spec(name).calibrated == (name in MEASURED)
    source = calibrated_cost(LLAMA, gpu_spec(name)).parameters()["source"]
    assert ("not calibrated" in source) == (name not in MEASURED)


@pytest.mark.parametrize("gpu", ["a100-80g", "b200", "mi300x"])
def test_no_step_beats_the_datasheet(gpu: str) -> None:
    real = calibrated_cost(LLAMA, gpu_spec(gpu)).step_table(2048, 256)
    peak = datasheet_cost(LLAMA, gpu_spec(gpu)).step_table(2048, 256)
    assert (real.linear_s[1:] > peak.linear_s[1:]).all()
    assert (real.head_s[1:] > peak.head_s[1:]).all()
    assert real.prefill_attention[0] > peak.prefill_attention[0]
    assert real.decode_attention[0] > peak.decode_attention[0]
    assert real.linear_s[0] == real.head_s[0] == 0.0


def test_linear_layers_add_up_from_their_gemms() -> None:
    """What is beyond the GEMMs, norms and activation, is a tenth to a quarter of a layer."""
    table = calibrated_cost(LLAMA, A100).step_table(2048, 8)
    gemm = operators(A100).gemm
    for tokens in (256, 1000, 2048):
        gemms_s = 32 * sum(float(gemm.predict(tokens, s.n, s.k)) for s in linear_shapes(LLAMA))
        assert 1.05 * gemms_s < table.linear_s[tokens] < 1.25 * gemms_s


def test_attention_prices_are_near_the_operator_models() -> None:
    table = calibrated_cost(LLAMA, A100).step_table(2048, 1024)
    used = operators(A100)
    read_s, sequence_s, step_s = table.decode_attention
    for batch, context in ((256, 1024), (64, 4096), (512, 512), (16, 8192)):
        linear_s = read_s * batch * context + sequence_s * batch + step_s
        model_s = 32 * float(used.decode.predict(batch, context, 32, 8, 128))
        assert linear_s == pytest.approx(model_s, rel=0.15)
    pair_s, token_s, step_s = table.prefill_attention
    for new, cached in ((2048, 0), (2048, 4096), (1024, 1024)):
        linear_s = pair_s * (new * cached + new * (new + 1) / 2) + token_s * new + step_s
        model_s = 32 * float(used.prefill.predict(1, new, cached, 32, 8, 128))
        assert linear_s == pytest.approx(model_s, rel=0.25)


def test_tensor_parallel_steps_are_faster_but_pay_for_communication() -> None:
    model = model_spec("llama-3.1-70b")
    whole, half = (calibrated_cost(model, A100, tp).step_table(2048, 8) for tp in (1, 2))
    assert 0.5 * whole.linear_s[2048] < half.linear_s[2048] < 0.7 * whole.linear_s[2048]
    assert half.decode_attention[0] < 0.6 * whole.decode_attention[0]


def test_quantised_weights_halve_small_steps() -> None:

    bf16 = calibrated_cost(LLAMA, gpu_spec("h100-80g")).step_table(2048, 8).linear_s
    fp8_model = with_weight_bits(LLAMA, 8.0)
    fp8 = calibrated_cost(fp8_model, gpu_spec("h100-80g")).step_table(2048, 8).linear_s
    assert fp8[1] < 0.75 * bf16[1]
    assert fp8[2048] < 0.75 * bf16[2048], "fp8 units"
    a100 = calibrated_cost(fp8_model, A100).step_table(2048, 8).linear_s
    a100_bf16 = calibrated_cost(LLAMA, A100).step_table(2048, 8).linear_s
    assert a100[1] < 0.75 * a100_bf16[1]
    assert a100[2048] > 0.9 * a100_bf16[2048], "no fp8 units"


def test_fp8_kv_cache_reads_faster() -> None:
    from dataclasses import replace

    h200 = gpu_spec("h200")
    fp8 = calibrated_cost(replace(LLAMA, kv_bits=8.0), h200).step_table(64, 256)
    bf16 = calibrated_cost(LLAMA, h200).step_table(64, 256)
    assert fp8.decode_attention[0] < bf16.decode_attention[0]


def test_experts_cost_more_than_one_but_less_than_all() -> None:
    mixtral = model_spec("mixtral-8x7b")
    table = calibrated_cost(mixtral, gpu_spec("h200")).step_table(2048, 8)
    read_all_s = mixtral.weight_bytes() / 4.8e12
    assert table.linear_s[1] < 0.6 * read_all_s
    assert table.linear_s[64] > 0.9 * read_all_s
    assert (np.diff(table.linear_s[1:64]) > -1e-4).all()


@pytest.mark.parametrize("name", model_names())
def test_every_model_has_prices(name: str) -> None:
    cost = cost_model("calibrated", model_spec(name), gpu_spec("b200"), 2)
    table = cost.step_table(64, 16)
    assert np.isfinite(table.linear_s).all()
    assert table.decode_attention[0] > 0
    compute_s, memory_s = cost.demand([512, 64], [16, 4096])
    assert compute_s[0] / memory_s[0] > compute_s[1] / memory_s[1] > 0


def test_demand_is_what_full_steps_cost() -> None:
    cost = calibrated_cost(LLAMA, A100)
    table = cost.step_table(4096, 1024)
    compute_s, memory_s = cost.demand([4096], [1])
    pair_s, token_s, _ = table.prefill_attention
    best_s = (table.linear_s[1:] / np.arange(1, 4097)).min()
    linear_s = compute_s[0] - pair_s * 4096 * 4097 / 2 - token_s * 4096
    assert linear_s == pytest.approx(4097 * best_s, rel=0.02)
    reads = 4096 * table.decode_attention[0]
    assert memory_s[0] == pytest.approx(reads + 0.5 * table.decode_attention[0], rel=0.05)


def test_parameters_are_json() -> None:
    import json

    parameters = calibrated_cost(LLAMA, gpu_spec("l40s"), 2).parameters()
    assert json.loads(json.dumps(parameters)) == parameters
    assert parameters["kernels"]["decode_attention"] == "vllm_flash_attn_fa2"


def test_a_degree_that_does_not_divide_is_refused() -> None:
    with pytest.raises(BlendplanError, match="does not divide"):
        calibrated_cost(LLAMA, A100, 3)


@pytest.mark.skipif(not DATA, reason="BLENDPLAN_DATA names no folder with kernels/")
def test_shipped_parameters_reach_the_goals_on_the_published_tables() -> None:
    """In percent, mean absolute."""
    import json

    script = str(ROOT / "benchmarks/accuracy.py")
    ran = subprocess.run(
        [sys.executable, script, "--data", str(DATA), "--json", "--shipped"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )
    rows = [row for row in json.loads(ran.stdout)["rows"] if row["goal"] is not None]
    assert {row["gpu"] for row in rows} == set(MEASURED)
    assert [row for row in rows if row["mape"] > row["goal"]] == []
