"""Mixtures of experts, latent attention and fp8: prices equal to plain sums over kernels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.cost.attention_prices import LATENT_FLOP_SHARE
from blendplan.cost.calibrated import calibrated_cost
from blendplan.cost.linear_times import ELEMENTWISE_BANDWIDTH_SHARE, ELEMENTWISE_LAUNCH_S
from blendplan.cost.operators.gemm import GemmModel
from blendplan.cost.operators.of_gpu import UNMEASURED_GEMM, UNMEASURED_PREFILL, operators
from blendplan.cost.operators.prefill_attention import PrefillAttentionModel
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.model import ModelSpec, linear_shapes
from tests.cost.weight_bits import with_weight_bits
from tests.oracles.kernel_times import decode_s, gemm_s, prefill_s

H200 = gpu_spec("h200")
SIZES = st.integers(1, 40000)
MIXTRAL, QWEN_MOE = model_spec("mixtral-8x7b"), model_spec("qwen-3-30b-a3b")
DEEPSEEK, LLAMA = model_spec("deepseek-v3"), model_spec("llama-3.1-8b")


@settings(max_examples=60)
@given(SIZES, SIZES, SIZES, st.sampled_from([1.0, 6.0, float("inf")]))
def test_fp8_gemm_equals_the_plain_formula(m: int, n: int, k: int, sets: float) -> None:
    predicted = GemmModel(H200, "fp8", UNMEASURED_GEMM).predict(m, n, k, operand_sets=sets)
    want = gemm_s(UNMEASURED_GEMM, H200, m, n, k, sets, fp8=True)
    assert float(predicted) == pytest.approx(want, rel=1e-9)


@settings(max_examples=60)
@given(SIZES, SIZES, SIZES, st.sampled_from([4.25, 8.0]))
def test_weights_of_few_bits_equal_the_plain_formula(m: int, n: int, k: int, bits: float) -> None:
    """They are expanded to bf16 on the way in."""
    parameters = UNMEASURED_GEMM._replace(quantise_passes=0.0)
    predicted = GemmModel(H200, "bf16", parameters).predict(m, n, k, weight_bits=bits)
    want = gemm_s(parameters, H200, m, n, k, float("inf"), weight_bits=bits)
    assert float(predicted) == pytest.approx(want, rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(1, 16),
    st.integers(1, 2000),
    st.integers(0, 9000),
    st.booleans(),
    st.sampled_from([8, 16]),
)
def test_prefill_in_fp8_equals_the_plain_formula(
    batch: int, new: int, cached: int, fp8: bool, kv_bits: int
) -> None:
    model = PrefillAttentionModel(H200, 8.0 if fp8 else 16.0, kv_bits, UNMEASURED_PREFILL)
    call = (batch, new, cached, 32, 8, 128)
    want = prefill_s(UNMEASURED_PREFILL, H200, *call, fp8=fp8, kv_bytes=kv_bits // 8)
    assert float(model.predict(*call)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("tokens", [1, 7, 64, 500, 2000])
@pytest.mark.parametrize(
    "model",
    [LLAMA, with_weight_bits(LLAMA, 8.0), MIXTRAL, QWEN_MOE, DEEPSEEK],
    ids=["dense", "dense fp8", "mixtral", "qwen moe", "deepseek fp8"],
)
def test_linear_layers_are_the_sum_of_their_gemms(model: ModelSpec, tokens: int) -> None:
    """Each GEMM of each layer; experts as one GEMM over those that are hit."""
    used = operators(H200, weight_bits=model.weight_bits)
    want_s = 0.0
    for shape in linear_shapes(model):
        fp8 = shape.weight_bits == 8
        hit = shape.experts * (1 - (1 - shape.experts_per_token / shape.experts) ** tokens)
        each = max(1.0, tokens * shape.experts_per_token / hit)
        parameters = (used.gemm if fp8 else used.head).parameters_
        call = (each, shape.n * hit, shape.k, float("inf"))
        bits = shape.weight_bits
        want_s += shape.layers * gemm_s(parameters, H200, *call, fp8=fp8, weight_bits=bits)
    for layer in model.layers:
        attention, part = layer.attention, layer.feed_forward
        assert attention is not None
        assert part is not None
        width = part.width + part.experts_per_token * part.expert_width + part.shared_width
        heads = attention.heads + attention.kv_heads
        elements = 8 * model.hidden + 2 * heads * attention.key_dim + 3 * width
        want_s += 5 * ELEMENTWISE_LAUNCH_S
        rate = ELEMENTWISE_BANDWIDTH_SHARE * H200.bandwidth_bytes_per_s
        want_s += 2 * elements * tokens / rate
    table = calibrated_cost(model, H200).step_table(2048, 4)
    assert table.linear_s[tokens] == pytest.approx(want_s, rel=1e-9)


@pytest.mark.parametrize(("experts", "each"), [(8, 2), (128, 8), (256, 8)])
@pytest.mark.parametrize("tokens", [1, 5, 40, 300])
def test_experts_that_are_hit(experts: int, each: int, tokens: int) -> None:
    """The formula against tokens that draw their experts evenly, without repetition."""
    rng = np.random.default_rng(0)
    hit = [
        len({int(e) for _ in range(tokens) for e in rng.permutation(experts)[:each]})
        for _ in range(60)
    ]
    expected = experts * (1 - (1 - each / experts) ** tokens)
    assert np.mean(hit) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("kv_bits", [8.0, 16.0])
@pytest.mark.parametrize("tp", [1, 8])
def test_latent_attention_reads_one_vector_and_computes_for_all_heads(
    kv_bits: float, tp: int
) -> None:
    """Prices are linear over many steps; each step's own sum is near them."""
    model = replace(DEEPSEEK, kv_bits=kv_bits)
    table = calibrated_cost(model, H200, tp).step_table(2048, 1024)
    read_s, sequence_s, step_s = table.decode_attention
    parameters = operators(H200, kv_bits=kv_bits).decode.parameters_
    (attention,) = model.attentions
    layers = model.layer_count
    heads, width = attention.heads // tp, attention.latent + attention.rope_dim
    for batch, context in ((64, 4096), (256, 1024), (128, 8192)):
        # One KV head; half of a key and half of a value each, as both are the same vector.
        call = (batch, context, heads, 1, width // 2, int(kv_bits // 8))
        kernel_s = layers * decode_s(parameters, H200, *call)
        products = 2 * (width + attention.latent) * heads * batch * context * layers
        matrix_s = products / (LATENT_FLOP_SHARE * H200.flop_per_s)
        want_s = (kernel_s**2 + matrix_s**2) ** 0.5
        price_s = read_s * batch * context + sequence_s * batch + step_s
        assert price_s == pytest.approx(want_s, rel=0.25)
        kv_bytes = width * kv_bits / 8 * batch * context * layers
        assert price_s > max(kv_bytes / H200.bandwidth_bytes_per_s, matrix_s)


def test_a_quantised_cache_has_attention_kernels_of_its_own() -> None:
    plain, quantised = (operators(H200, kv_bits=bits) for bits in (16.0, 8.0))
    assert plain.decode.parameters_ != quantised.decode.parameters_
    assert plain.prefill.parameters_ != quantised.prefill.parameters_
    fitted = H200.fitted["prefill_attention"]["bf16_fp8_kv"]
    assert quantised.prefill.parameters_._asdict() in list(fitted.values())
    # Where nobody measured prefill with such a cache, that of bf16 is nearest.
    a100 = operators(gpu_spec("a100-80g"), kv_bits=8.0)
    assert a100.prefill.parameters_ == operators(gpu_spec("a100-80g")).prefill.parameters_
