"""Operator models: equal to the plain formulas, and able to learn from measurements."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.cost.calibration.search import minimise
from blendplan.cost.operators.all_reduce import AllReduceModel, Protocol
from blendplan.cost.operators.decode_attention import DecodeAttentionModel
from blendplan.cost.operators.gemm import GemmModel
from blendplan.cost.operators.of_gpu import (
    UNMEASURED_DECODE,
    UNMEASURED_GEMM,
    UNMEASURED_PREFILL,
    operators,
)
from blendplan.cost.operators.prefill_attention import PrefillAttentionModel
from blendplan.hardware.lookup import gpu_spec
from tests.oracles.kernel_times import decode_s, gemm_s, prefill_s

GPU = gpu_spec("h100-80g")
GEMM = UNMEASURED_GEMM._replace(quantise_passes=0.0)
DECODE = UNMEASURED_DECODE._replace(
    most_splits_ungrouped=3.0, switch_tokens=300.0, switch_slowdown=0.2, context_s=2e-8
)
SIZES = st.integers(1, 40000)


@settings(max_examples=100)
@given(SIZES, SIZES, SIZES, st.sampled_from([1.0, 6.0, float("inf")]))
def test_gemm_equals_the_plain_formula(m: int, n: int, k: int, sets: float) -> None:
    predicted = GemmModel(GPU, "bf16", GEMM).predict(m, n, k, operand_sets=sets)
    assert float(predicted) == pytest.approx(gemm_s(GEMM, GPU, m, n, k, sets), rel=1e-9)


@settings(max_examples=100)
@given(
    st.integers(1, 2048),
    st.integers(1, 100_000),
    st.sampled_from([(32, 8), (8, 8), (64, 1), (1, 1)]),
    st.sampled_from([64, 128, 288]),
    st.sampled_from([8, 16]),
)
def test_decode_attention_equals_the_plain_formula(
    batch: int, context: int, heads: tuple[int, int], dim: int, bits: int
) -> None:
    model = DecodeAttentionModel(GPU, bits, DECODE)
    want = decode_s(DECODE, GPU, batch, context, *heads, dim, bits // 8)
    assert float(model.predict(batch, context, *heads, dim)) == pytest.approx(want, rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(1, 64),
    st.integers(1, 3000),
    st.integers(0, 9000),
    st.sampled_from([(32, 8), (8, 8), (64, 1)]),
    st.sampled_from([64, 128, 256]),
)
def test_prefill_attention_equals_the_plain_formula(
    batch: int, new: int, cached: int, heads: tuple[int, int], dim: int
) -> None:
    model = PrefillAttentionModel(GPU, parameters=UNMEASURED_PREFILL)
    want = prefill_s(UNMEASURED_PREFILL, GPU, batch, new, cached, *heads, dim)
    assert float(model.predict(batch, new, cached, *heads, dim)) == pytest.approx(want, rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(1, 64),
    st.integers(1, 3000),
    st.integers(0, 9000),
    st.sampled_from([1, 128, 1024, 4096, 8192]),
)
def test_windowed_prefill_equals_the_plain_formula(
    batch: int, new: int, cached: int, window: int
) -> None:
    model = PrefillAttentionModel(GPU, parameters=UNMEASURED_PREFILL)
    want = prefill_s(UNMEASURED_PREFILL, GPU, batch, new, cached, 32, 8, 128, window=window)
    got = float(model.predict(batch, new, cached, 32, 8, 128, window))
    assert got == pytest.approx(want, rel=1e-9)
    if new + cached > 2 * (window + 256):
        assert got < float(model.predict(batch, new, cached, 32, 8, 128))


def test_predictions_broadcast_and_keep_their_shape() -> None:
    times = GemmModel(GPU, "bf16", GEMM).predict(np.array([[1], [64]]), np.array([1024, 4096]), 512)
    assert times.shape == (2, 2)
    assert (times > 0).all()


def test_head_dimensions_are_padded_to_the_next_kernel() -> None:
    model = PrefillAttentionModel(GPU, parameters=UNMEASURED_PREFILL._replace(query_passes=0.0))
    no_io = UNMEASURED_PREFILL._replace(query_passes=0.0, kv_passes=0.0)
    model = PrefillAttentionModel(GPU, parameters=no_io)
    odd, padded, next_up = (float(model.predict(4, 2048, 0, 32, 8, d)) for d in (96, 128, 129))
    assert odd == padded < next_up


def test_fewer_weight_bits_shorten_memory_bound_calls_only() -> None:
    model = GemmModel(GPU, "bf16", GEMM)
    few = model.predict(4, 8192, 8192), model.predict(4, 8192, 8192, weight_bits=4.25)
    many = model.predict(8192, 8192, 8192), model.predict(8192, 8192, 8192, weight_bits=4.25)
    assert few[1] < 0.5 * few[0]
    assert many[1] > 0.95 * many[0]


def test_operands_that_stay_in_cache_are_faster() -> None:
    model = GemmModel(GPU, "bf16", GEMM)
    assert model.predict(8, 1024, 1024, operand_sets=6) < model.predict(8, 1024, 1024)


def test_minimise_finds_the_lower_of_two_valleys_within_bounds() -> None:
    def error(vector: NDArray[np.float64]) -> float:
        x, y = vector
        return float(min((x + 2) ** 2, (x - 2) ** 2 - 0.5) + abs(y - 9))

    found = minimise(error, [(-3.0, 3.0), (0.0, 5.0)], [(-2.5, 1.0), (2.5, 1.0)])
    assert found == pytest.approx([2.0, 5.0], abs=0.01)


def test_minimise_keeps_what_its_bounds_fix() -> None:
    found = minimise(lambda v: float((v[0] - 1) ** 2), [(0.0, 4.0), (7.0, 7.0)], [(3.0, 7.0)])
    assert found[1] == 7.0
    assert found[0] == pytest.approx(1.0, abs=0.01)


def _noisy(seconds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return np.asarray(seconds * rng.lognormal(0.0, 0.02, len(seconds)))


def test_gemm_learns_another_gpus_parameters_from_its_times() -> None:
    truth = GEMM._replace(flop_share=0.55, bandwidth_share=0.62, launch_s=6e-6, tail_share=0.9)
    rng = np.random.default_rng(0)
    m, n, k = 2 ** rng.integers(0, 14, 300), *(1024 * rng.integers(1, 20, (2, 300)))
    measured = GemmModel(GPU, "bf16", truth).predict(m, n, k, operand_sets=6)
    model = GemmModel(GPU, "bf16").fit(m[:200], n[:200], k[:200], _noisy(measured[:200], rng))
    error = model.predict(m[200:], n[200:], k[200:], operand_sets=6) / measured[200:] - 1
    assert np.abs(error).mean() < 0.03
    assert model.parameters_.quantise_passes == 0.0


def test_decode_attention_learns_from_times() -> None:
    truth = DECODE._replace(bandwidth_share=0.5, launch_s=25e-6, units_per_sm=1.0)
    rng = np.random.default_rng(1)
    columns = [2 ** rng.integers(0, 9, 400), 2 ** rng.integers(7, 15, 400)]
    pairs = np.array([(32, 8), (8, 1), (16, 16), (64, 8)])[rng.integers(0, 4, 400)]
    columns += [pairs[:, 0], pairs[:, 1], np.full(400, 128)]
    measured = DecodeAttentionModel(GPU, 16, truth).predict(*columns[:2], *columns[2:])
    b, c, h, g, d = (column[:300] for column in columns)
    model = DecodeAttentionModel(GPU).fit(b, c, h, g, d, _noisy(measured[:300], rng))
    b, c, h, g, d = (column[300:] for column in columns)
    assert np.abs(model.predict(b, c, h, g, d) / measured[300:] - 1).mean() < 0.04


def test_prefill_attention_learns_from_times_and_fills_unseen_head_dimensions() -> None:
    truth = UNMEASURED_PREFILL._replace(flop_share_64=0.2, flop_share_128=0.33, launch_s=30e-6)
    rng = np.random.default_rng(2)
    b, n, dim = 2 ** rng.integers(0, 6, 300), 512 * rng.integers(1, 20, 300), np.full(300, 128)
    dim[::2] = 64
    heads, zero = np.full(300, 32), np.zeros(300)
    measured = PrefillAttentionModel(GPU, parameters=truth).predict(b, n, zero, heads, 8, dim)
    model = PrefillAttentionModel(GPU).fit(
        b, n, zero, heads, np.full(300, 8), dim, _noisy(measured, rng)
    )
    error = model.predict(b, n, 0, heads, 8, dim) / measured - 1
    assert np.abs(error).mean() < 0.03
    assert model.parameters_.flop_share_512 == model.parameters_.flop_share_128
    assert model.parameters_.flop_share_64 < model.parameters_.flop_share_128


def test_all_reduce_learns_its_protocols() -> None:
    sizes = 2.0 ** np.arange(8, 30)
    one_shot, ring = 5e-6 + sizes * 2e-11, 40e-6 + sizes * 5e-12
    truth = np.where(sizes < 3e6, one_shot, ring)
    model = AllReduceModel().fit(np.full(len(sizes), 4), sizes, truth)
    np.testing.assert_allclose(model.predict(4, sizes), truth, rtol=1e-3)
    assert model.predict(1, 1e9) == 0.0
    assert model.predict([3, 16], 1e6).tolist() == model.predict([4, 4], 1e6).tolist()


def test_all_reduce_with_few_sizes_takes_fewer_protocols() -> None:
    model = AllReduceModel().fit([2, 2], [1e3, 1e6], [1e-5, 2e-5])
    assert len(model.protocols_[2]) == 1
    np.testing.assert_allclose(model.predict(2, [1e3, 1e6]), [1e-5, 2e-5], rtol=1e-6)


def test_all_reduce_protocols_are_chosen_by_size() -> None:
    model = AllReduceModel({2: [Protocol(1e3, 1.0, 0.0), Protocol(np.inf, 2.0, 0.0)]})
    half_octave = 2.0**0.5
    sizes = [1.0, 1e3 / half_octave, 1e3, 1e3 * half_octave, 1e9]
    np.testing.assert_allclose(model.predict(2, sizes), [1.0, 1.0, half_octave, 2.0, 2.0])
    fine = model.predict(2, np.geomspace(500.0, 2000.0, 100))
    assert (np.diff(fine) >= 0).all()


def test_gpus_without_measurements_say_so() -> None:
    assert operators(gpu_spec("mi300x")).measured == ()
    assert set(operators(gpu_spec("h200")).measured) == {
        "gemm",
        "decode_attention",
        "prefill_attention",
        "all_reduce",
    }
