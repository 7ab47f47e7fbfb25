"""Prices of models whose layers look back, choose, compress or keep states."""

import json
from dataclasses import replace

import numpy as np
import pytest

from blendplan.cost.calibrated import calibrated_cost
from blendplan.cost.datasheet import datasheet_cost
from blendplan.cost.looks import looks_of, reach_of
from blendplan.cost.operators.of_gpu import operators
from blendplan.cost.protocol import step_table
from blendplan.cost.reach import ALL_TOKENS, OWN_TOKEN, pairs_of, tokens_read
from blendplan.cost.step import StepTable, step_times
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.layers import Attention, FeedForward, Layer
from blendplan.hardware.lookup import gpu_spec
from blendplan.hardware.model import ModelSpec
from tests.oracles.kernel_times import decode_s, prefill_s
from tests.oracles.small_models import (
    COMPRESSED,
    DELTA,
    FULL,
    MAMBA2,
    MIXERS,
    SHARED,
    SPARSE,
    WINDOW,
    model_of,
)

H200 = gpu_spec("h200")
LIMITS = EngineLimits(kv_tokens=16 * 4096, max_num_seqs=512, max_num_batched_tokens=4096)


def tables(name: str, tp: int = 1) -> tuple[StepTable, StepTable]:
    """Calibrated and datasheet prices of a kind of model."""
    model = model_of(MIXERS[name])
    real, peak = calibrated_cost(model, H200, tp), datasheet_cost(model, H200, tp)
    return step_table(real, LIMITS), step_table(peak, LIMITS)


def prefill_of(table: StepTable, new: int, cached: int) -> float:
    pair_s, token_s, step_s = table.prefill_attention
    return float(pair_s * pairs_of(table.reach, cached, new) + token_s * new + step_s)


def decode_of(table: StepTable, batch: int, context: int) -> float:
    """Memory time of a step that only decodes."""
    reads = batch * tokens_read(table.reach, context)
    return step_times(table, 0, 0.0, batch, reads, batch)[1]


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("tp", [1, 2])
def test_no_kind_of_layer_beats_the_datasheet(name: str, tp: int) -> None:
    real, peak = tables(name, tp)
    assert (real.linear_s[1:] > peak.linear_s[1:]).all()
    for new, cached in ((512, 0), (2048, 0), (2048, 4096), (4096, 0)):
        assert prefill_of(real, new, cached) > prefill_of(peak, new, cached)
    for batch, context in ((64, 1024), (256, 2048), (64, 16_000), (512, 4096)):
        assert decode_of(real, batch, context) > 0.95 * decode_of(peak, batch, context)


@pytest.mark.parametrize("name", MIXERS)
def test_demand_is_what_well_filled_steps_cost(name: str) -> None:
    """A long request, step by step, against the demand that is stated for it."""
    model = model_of(MIXERS[name])
    for cost in (calibrated_cost(model, H200), datasheet_cost(model, H200)):
        table = cost.step_table(4096, 1024)
        prompt, output = 3000, 2000
        _, memory_s = cost.demand([prompt], [output])
        read_s, sequence_s, _ = table.decode_attention
        reads = sum(tokens_read(table.reach, prompt + step) for step in range(1, output + 1))
        want_s = read_s * reads + output * (sequence_s + table.state_s)
        assert memory_s[0] == pytest.approx(want_s, rel=2e-3)


def test_windows_are_priced_as_their_kernels() -> None:
    """Sums over the layers of what the operators say, full and windowed."""
    table, _ = tables("windows")
    decode = operators(H200).decode.parameters_
    prefill = operators(H200).prefill.parameters_
    for batch, context in ((64, 4096), (256, 2048), (256, 512)):
        want_s = 3 * decode_s(decode, H200, batch, context, 32, 8, 128, 2)
        want_s += 9 * decode_s(decode, H200, batch, min(context, 1024 + 32), 32, 8, 128, 2)
        assert decode_of(table, batch, context) == pytest.approx(want_s, rel=0.2)
    for new, cached in ((2048, 0), (4096, 0), (2048, 4096)):
        want_s = 3 * prefill_s(prefill, H200, 1, new, cached, 32, 8, 128)
        want_s += 9 * prefill_s(prefill, H200, 1, new, cached, 32, 8, 128, window=1024)
        assert prefill_of(table, new, cached) == pytest.approx(want_s, rel=0.3)


def test_a_window_ends_the_growth_of_reads() -> None:
    """What a token more costs, in a model with one full layer in four, is a quarter of it."""
    windows, full = tables("windows")[1], tables("full")[1]
    for table, share in ((windows, 0.25), (full, 1.0)):
        more = tokens_read(table.reach, 9000) - tokens_read(table.reach, 8000)
        assert more == pytest.approx(1000 * share)
    assert windows.decode_attention[0] == pytest.approx(full.decode_attention[0])


@pytest.mark.parametrize("tp", [1, 2])
def test_states_are_read_and_written_by_every_decode(tp: int) -> None:
    real, peak = tables("gated delta", tp)
    state_bytes = 9 * (DELTA.state_elements * 4 + DELTA.conv_elements * 2) / tp
    assert peak.state_s == pytest.approx(2 * state_bytes / H200.bandwidth_bytes_per_s)
    assert real.state_s == pytest.approx(peak.state_s / 0.86)
    assert peak.reach is ALL_TOKENS
    # Eight of twelve layers read nothing that grows.
    assert peak.decode_attention[0] == pytest.approx(
        3 * 2 * 8 // tp * 128 * 2 / H200.bandwidth_bytes_per_s
    )


def test_a_model_of_states_alone_reads_one_token_for_them() -> None:
    real, peak = tables("states only")
    for table in (real, peak):
        assert table.reach is OWN_TOKEN
        assert table.state_s == 0.0
        assert decode_of(table, 10, 50) == decode_of(table, 10, 5000) > 0
        assert table.prefill_attention[0] == 0.0
    bytes_each = 12 * (MAMBA2.state_elements * 2 + MAMBA2.conv_elements * 2)
    assert peak.decode_attention[0] == pytest.approx(2 * bytes_each / H200.bandwidth_bytes_per_s)


def test_chosen_tokens_are_found_by_an_indexer_that_reads_all() -> None:
    chosen, indexer = looks_of(model_of([(SPARSE,)], layers=1), 8)
    assert (chosen.tokens, indexer.tokens) == (2048, 0)
    assert chosen.read_bytes == (512 + 64) * 2
    assert chosen.pair_flop == 2 * (512 + 64 + 512) * 16
    assert indexer.read_bytes == 128 + 4
    assert indexer.pair_flop == 2 * 64 * 128, "every GPU scores for itself"


def test_compressed_history_is_read_in_part() -> None:
    window, rest = looks_of(model_of([(COMPRESSED,)], layers=3))
    assert (window.tokens, rest.tokens) == (128, 4 * 512)
    assert (window.layers, rest.layers) == (3, 3)
    assert window.read_bytes == 512 * 2, "keys and values are the same elements"
    assert rest.read_bytes == window.read_bytes / 4
    assert rest.pair_flop == window.pair_flop / 4


def test_fp8_entries_are_read_with_their_scales() -> None:
    packed = replace(model_of([(COMPRESSED,)], layers=1), kv_bits=8.0)
    window, rest = looks_of(packed)
    assert (window.read_bytes, rest.read_bytes) == (584, 584 / 4)
    chosen, indexer = looks_of(replace(model_of([(SPARSE,)], layers=1), kv_bits=8.0), 8)
    assert (chosen.read_bytes, indexer.read_bytes) == (512 + 16 + 128, 132)
    for mixer in (COMPRESSED, SPARSE):
        models = [replace(model_of([(mixer,)]), kv_bits=bits) for bits in (8.0, 16.0)]
        small, large = (
            decode_of(datasheet_cost(model, H200).step_table(64, 512), 512, 8192)
            for model in models
        )
        read = [sum(look.read_bytes * look.seen(np.array(8192.0)) for look in looks_of(model))
                for model in models]  # fmt: skip
        assert small / large == pytest.approx(read[0] / read[1])


def test_layers_that_keep_nothing_read_all_the_same() -> None:
    (shared,) = looks_of(model_of([(SHARED,)], layers=2))
    assert shared.read_bytes == 2 * 8 * 128 * 2
    assert model_of([(SHARED,)]).kv_bytes_per_token() == 0


def test_looks_of_equal_reach_are_one_kind() -> None:
    looks = looks_of(model_of([(FULL,), (WINDOW,), (WINDOW,), (SHARED,)], layers=8))
    reach, pair_s, read_s = reach_of(looks, [2.0, 3.0, 5.0], [1.0, 2.0, 1.0])
    assert reach.tokens.tolist() == [0, 1024, 512]
    assert (pair_s, read_s) == (10.0, 4.0)
    assert reach.pair_share.tolist() == [0.2, 0.3, 0.5]
    assert reach.read_share.tolist() == [0.25, 0.5, 0.25]
    alike = looks_of(model_of([(FULL,), (Attention(8, 8, 64, 64),)], layers=2))
    assert reach_of(alike, [1.0, 2.0], [3.0, 4.0]) == (ALL_TOKENS, 3.0, 7.0)
    assert reach_of([], [], []) == (OWN_TOKEN, 0, 0)


def test_nvfp4_weights_are_multiplied_as_they_are_where_the_gpu_can() -> None:
    b200 = replace(gpu_spec("b200"), fp4_flop_per_s=9000e12)
    without = replace(b200, fp4_flop_per_s=0.0)

    def linear_s(bits: float, gpu: object) -> np.ndarray:
        part = FeedForward(width=14336, weight_bits=bits)
        wide = replace(FULL, weight_bits=bits)
        model = ModelSpec("small", 8192, 32000, 8192, (Layer((wide,), part),) * 8)
        return calibrated_cost(model, gpu).step_table(4096, 8).linear_s  # type: ignore[arg-type]

    fp4, fp8, bf16 = (linear_s(bits, b200) for bits in (4.5, 8.0, 16.0))
    assert fp4[4096] < 0.8 * fp8[4096] < 0.8 * bf16[4096]
    # So are groups of fp8 weights with scales of their own, and take little more to read.
    mxfp8 = linear_s(8.25, b200)
    assert 0.99 * fp8[4096] < mxfp8[4096] < 0.8 * bf16[4096]
    assert fp8[1] < mxfp8[1] < 1.05 * fp8[1]
    # Where it cannot, and for integers and mxfp4, they are expanded: small steps gain, large ones
    # do not.
    expanded = linear_s(4.5, without)
    assert linear_s(8.25, without)[4096] > 0.95 * bf16[4096] > linear_s(8.0, without)[4096]
    integers, mxfp4 = linear_s(4.15625, b200), linear_s(4.25, b200)
    for table in (expanded, integers, mxfp4):
        assert table[1] < 0.5 * bf16[1]
        assert table[4096] > 0.95 * bf16[4096]


def test_every_layer_has_the_bits_of_its_own_weights() -> None:
    """Experts of 8 bits beside attention of 16."""
    mixed = FeedForward(experts=8, experts_per_token=2, expert_width=4096, expert_bits=8.0)
    plain = FeedForward(experts=8, experts_per_token=2, expert_width=4096)
    model, wide = (
        ModelSpec("small", 4096, 32000, 8192, (Layer((FULL,), part),) * 4)
        for part in (mixed, plain)
    )
    smaller_s, larger_s = (
        calibrated_cost(m, H200).step_table(64, 8).linear_s for m in (model, wide)
    )
    saved_bytes = 4 * 8 * 3 * 4096 * 4096
    saved_s = larger_s[64] - smaller_s[64]
    assert saved_s == pytest.approx(saved_bytes / H200.bandwidth_bytes_per_s, rel=0.4)


@pytest.mark.parametrize("name", MIXERS)
def test_what_prices_follow_from_is_json(name: str) -> None:
    for cost in (calibrated_cost, datasheet_cost):
        parameters = cost(model_of(MIXERS[name]), H200).parameters()
        assert json.loads(json.dumps(parameters)) == parameters


def test_scans_that_nobody_measured_are_named() -> None:
    assert "mamba2" in calibrated_cost(model_of(MIXERS["mamba2"]), H200).note
    assert calibrated_cost(model_of(MIXERS["gated delta"]), H200).note == ""
    assert calibrated_cost(model_of(MIXERS["convolutions"]), H200).note == ""
