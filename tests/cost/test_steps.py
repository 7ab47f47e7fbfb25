"""The datasheet cost model against the paper's numbers, and step prices against plain formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.cost.datasheet import datasheet_cost
from blendplan.cost.protocol import step_table
from blendplan.cost.registry import cost_model
from blendplan.cost.step import StepTable, price_steps, step_times
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.model import linear_shapes

LLAMA, A100 = model_spec("llama-3.1-8b"), gpu_spec("a100-80g")


def test_densities_of_figure_6() -> None:
    cost = datasheet_cost(LLAMA, A100, active_parameters=8.0e9)
    compute_s, memory_s = cost.demand([512, 256], [256, 16384])
    short, long = compute_s / memory_s
    assert short == pytest.approx(3.73, abs=0.011)
    assert long == pytest.approx(0.096, abs=0.0005)


def test_true_parameters_are_the_default() -> None:
    compute_s, _ = datasheet_cost(LLAMA, A100).demand([1], [1])
    assert compute_s[0] == pytest.approx(2 * 2 * 8.03e9 / 312e12, rel=1e-4)


def test_tensor_parallel_demand_is_shared() -> None:
    one, two = datasheet_cost(LLAMA, A100), datasheet_cost(LLAMA, A100, 2)
    for alone, shared in zip(one.demand([512], [256]), two.demand([512], [256]), strict=True):
        assert shared[0] == pytest.approx(alone[0] / 2)


def test_step_table_is_a_roofline() -> None:
    table = datasheet_cost(LLAMA, A100).step_table(2048, 256)
    layers = sum(shape.parameters for shape in linear_shapes(LLAMA))
    assert table.linear_s[1] == pytest.approx(2 * layers / 2.039e12), "weights are read once"
    assert table.linear_s[2048] == pytest.approx(2 * 2048 * layers / 312e12)
    assert table.head_s[256] == pytest.approx(2 * 4096 * 128256 * 256 / 312e12)
    assert table.prefill_attention[0] == pytest.approx(4 * 4096 * 32 / 312e12)
    assert table.decode_attention[0] == pytest.approx(131072 / 2.039e12)
    assert table.linear_s[0] == table.head_s[0] == 0.0
    assert (np.diff(table.linear_s) >= 0).all()


def test_tensor_parallel_steps_pay_for_communication() -> None:
    fast = datasheet_cost(LLAMA, A100, 2).step_table(64, 8).linear_s[64]
    slow = datasheet_cost(LLAMA, gpu_spec("l40s"), 2).step_table(64, 8).linear_s[64]
    assert slow > fast > datasheet_cost(LLAMA, A100).step_table(64, 8).linear_s[64] / 2


def test_experts_are_read_as_tokens_hit_them() -> None:
    mixtral = model_spec("mixtral-8x7b")
    table = datasheet_cost(mixtral, gpu_spec("h200")).step_table(512, 8)
    dense = 2 * sum(s.parameters for s in linear_shapes(mixtral) if s.experts == 1) / 4.8e12
    experts = 2 * sum(s.parameters for s in linear_shapes(mixtral) if s.experts > 1) / 4.8e12
    assert table.linear_s[1] == pytest.approx(dense + experts * 2 / 8)
    assert table.linear_s[2] == pytest.approx(dense + experts * (1 - 0.75**2))


def test_fp8_weights_run_on_fp8_units_where_there_are_any() -> None:
    deepseek = model_spec("deepseek-v3")
    assert datasheet_cost(deepseek, gpu_spec("h100"), 8).flop_per_s == 1978e12
    assert datasheet_cost(deepseek, A100, 8).flop_per_s == 312e12


def test_cost_models_by_name() -> None:
    assert cost_model("datasheet", LLAMA, A100).name == "datasheet"
    with pytest.raises(BlendplanError, match="unknown cost model 'data'"):
        cost_model("data", LLAMA, A100)


@pytest.mark.parametrize("limits", [(0, 8, 1.0), (8, 0, 1.0), (8, 8, 0.5), (8, 8, float("nan"))])
def test_bad_step_limits(limits: tuple[int, int, float]) -> None:
    with pytest.raises(BlendplanError, match="at least 1"):
        tokens, sequences, overlap = limits
        step_table(datasheet_cost(LLAMA, A100), EngineLimits(99, sequences, tokens), overlap)


def _table(rng: np.random.Generator, tokens: int, sequences: int, overlap: float) -> StepTable:
    linear_s, head_s = rng.random(tokens + 1), rng.random(sequences + 1)
    linear_s[0] = head_s[0] = 0.0
    return StepTable(linear_s, head_s, rng.random(3), rng.random(3), overlap, rng.random())


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1.5, 2.0, 7.0, np.inf]))
def test_step_prices_equal_the_plain_formula(seed: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    table = _table(rng, 64, 16, overlap)
    prefill = rng.integers(0, 40, 200) * rng.integers(0, 2, 200)
    pairs = prefill * (prefill + 1) / 2.0
    decodes = rng.integers(0, 16, 200) * rng.integers(0, 2, 200)
    kv = (decodes * rng.integers(1, 1000, 200)).astype(np.float64)
    sampling = np.minimum(decodes + (prefill > 0), 16)

    compute_s, memory_s, step_s = price_steps(table, prefill, pairs, decodes, kv, sampling)

    busy = prefill + decodes > 0
    some = (prefill > 0).astype(float)
    a, b, c = table.prefill_attention
    want_compute = table.linear_s[prefill + decodes] + table.head_s[sampling]
    want_compute = (want_compute + some * (a * pairs + b * prefill + c)) * busy
    a, b, c = table.decode_attention
    want_memory = (decodes > 0) * (a * kv + b * decodes + c)
    if overlap == np.inf:
        want_step = np.maximum(want_compute, want_memory)
    else:
        want_step = (want_compute**overlap + want_memory**overlap) ** (1 / overlap)
    np.testing.assert_allclose(compute_s, want_compute, rtol=1e-12)
    np.testing.assert_allclose(memory_s, want_memory, rtol=1e-12)
    np.testing.assert_allclose(step_s, want_step + busy * table.step_s, rtol=1e-9)
    one = step_times(table, prefill[0], pairs[0], decodes[0], kv[0], sampling[0])
    assert one == (compute_s[0], memory_s[0], step_s[0])
