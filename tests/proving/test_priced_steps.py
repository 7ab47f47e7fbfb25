"""Steps of a log priced at once, against the simulated engine's own rule, a step at a time."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import blendplan
from blendplan.cost.calibration.from_steps import StepLog, read_step_log
from blendplan.cost.machine import machine
from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.proving.priced_steps import KINDS, PricedSteps, priced_steps
from blendplan.simulator import steps
from blendplan.simulator.kv import cache_for
from blendplan.simulator.series import empty_series
from blendplan.simulator.workload import Workload
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from tests.oracles.layer_kinds import LAYERS
from tests.planfile.test_rerun import job

TOKENS, SEQUENCES = 64, 16


def _table(rng: np.random.Generator, overlap: float, reach: Reach = ALL_TOKENS) -> StepTable:
    linear_s, head_s = rng.random(TOKENS + 1), rng.random(SEQUENCES + 1)
    linear_s[0] = head_s[0] = 0.0
    prices = rng.random(3), rng.random(3) / 100
    return StepTable(linear_s, head_s, *prices, overlap, rng.random(), rng.random(), reach)


def _log(rng: np.random.Generator, count: int, reach: Reach = ALL_TOKENS) -> StepLog:
    """Steps of all kinds, none of them empty."""
    prefills = rng.integers(0, 4, count) * rng.integers(0, 2, count)
    prefill = prefills * rng.integers(1, 12, count)
    decode = rng.integers(0, SEQUENCES - 4, count) * rng.integers(0, 2, count)
    decode[prefill + decode == 0] = 1
    read, sequences = decode * rng.integers(1, 500, count), prefills + decode
    return StepLog(
        prefill_tokens=prefill.astype(np.float64),
        decode_tokens=decode.astype(np.float64),
        kv_tokens_read=read.astype(np.float64),
        sequences=sequences.astype(np.float64),
        time_s=rng.uniform(0.01, 3.0, count),
        prefill_pairs=prefill * rng.uniform(1.0, 90.0, count),
        reach=reach,
    )


def _one_by_one(log: StepLog, table: StepTable) -> NDArray[np.float64]:
    """Each step priced by the simulated engine, as if it had just been scheduled there."""
    limits, one = EngineLimits(1024, SEQUENCES, TOKENS), np.ones(1, np.int32)
    requests = blendplan.requests_from_lists([[1]])
    workload = Workload(one, one, block_chains(build_tree(requests), requests, limits.block_size))
    engine = steps.idle_engine(one, one, limits, table.reach)
    cache = cache_for(workload, limits, None)
    series, now, step = empty_series(), engine.now[0], engine.step[0]
    priced = []
    for place in range(len(log)):
        steps.begin(engine, TOKENS)
        step.prefill_tokens = int(log.prefill_tokens[place])
        step.prefill_pairs = log.prefill_pairs[place]
        step.decode_sequences = int(log.decode_tokens[place])
        step.kv_tokens_read = log.kv_tokens_read[place]
        step.sampling = int(log.sequences[place])
        before_s = float(now.clock_s)
        assert steps.price(engine, cache, table, series)
        assert now.clock_s == before_s + step.time_s
        priced.append(float(step.time_s))
    return np.array(priced)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.sampled_from([1.0, 1.5, 2.0, np.inf]),
    st.sampled_from([reach for reach, *_ in LAYERS]),
)
def test_every_step_costs_what_the_simulator_says(
    seed: int, count: int, overlap: float, reach: Reach
) -> None:
    rng = np.random.default_rng(seed)
    table, log = _table(rng, overlap, reach), _log(rng, count, reach)
    found = priced_steps(log, table)
    assert found.predicted_s.tolist() == _one_by_one(log, table).tolist()
    assert found.measured_s.tolist() == log.time_s.tolist()
    for kind, prefill, decode in zip(
        found.kind, log.prefill_tokens, log.decode_tokens, strict=True
    ):
        expected = "mixed" if prefill and decode else "prefill" if prefill else "decode"
        assert KINDS[kind] == expected


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kv_tokens=st.integers(700, 4_000),
    overlap=st.sampled_from([1.0, 2.0]),
    async_scheduling=st.booleans(),
    policy=st.sampled_from(["fcfs", "blend"]),
)
def test_a_simulated_run_is_priced_as_it_was_simulated(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kv_tokens: int,
    overlap: float,
    async_scheduling: bool,
    policy: str,
) -> None:
    """Exactly where steps only decode; else but for the heads of prompts that go on."""
    path = tmp_path_factory.mktemp("priced") / "steps.parquet"
    engine: dict[str, Any] = {
        "kv_tokens": kv_tokens,
        "max_num_seqs": 24,
        "max_num_batched_tokens": 256,
        "overlap": overlap,
        "async_scheduling": async_scheduling,
    }
    plan = blendplan.plan(job(seed, 60), gpu="a100-80g", policy=policy, **engine)
    blendplan.replay(plan, "sim", step_log=path)
    table = machine("a100-80g", **engine).table
    log, simulated_s = read_step_log(path), pq.read_table(path).column("time_s").to_numpy()
    found = priced_steps(log, table)
    decodes = found.kind == KINDS.index("decode")
    np.testing.assert_allclose(found.predicted_s[decodes], simulated_s[decodes], rtol=1e-12)
    sequences, decoding = log.sequences.astype(int), log.decode_tokens.astype(int)
    most_s = simulated_s + table.head_s[sequences] - table.head_s[decoding]
    assert (found.predicted_s >= simulated_s * (1 - 1e-12)).all()
    assert (found.predicted_s <= most_s * (1 + 1e-12)).all()


def test_figures() -> None:
    found = PricedSteps(
        np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.0, 2.0, 4.0, 8.0]), np.array([0, 0, 2, 2])
    ).as_dict()
    kinds = found.pop("kinds")
    assert found == {
        "steps": 4,
        "measured_s": 16.0,
        "predicted_s": 15.0,
        "time_share": 1.0,
        "total_error": 15 / 16 - 1,
        "median_error": pytest.approx((0.125 + 0.25) / 2),
        "mean_error": pytest.approx((0.5 + 0 + 0.25 + 0.125) / 4),
    }
    assert kinds["decode"]["time_share"] == 0.25
    assert kinds["decode"]["total_error"] == 3 / 4 - 1
    assert kinds["mixed"]["steps"] == 2
    assert kinds["prefill"] == {
        "steps": 0,
        "measured_s": 0.0,
        "predicted_s": 0.0,
        "time_share": 0.0,
        "total_error": None,
        "median_error": None,
        "mean_error": None,
    }


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_kinds_add_up(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    found = priced_steps(_log(rng, count), _table(rng, 1.0)).as_dict()
    for name in ("steps", "measured_s", "predicted_s", "time_share"):
        total = sum(kind[name] for kind in found["kinds"].values())
        assert total == pytest.approx(found[name])
    mean = sum(kind["steps"] * (kind["mean_error"] or 0) for kind in found["kinds"].values())
    assert mean == pytest.approx(found["mean_error"] * count)


def test_a_log_of_other_limits_or_another_reach() -> None:
    rng = np.random.default_rng(0)
    log, table = _log(rng, 40), _table(rng, 1.0)
    with pytest.raises(BlendplanError, match="of up to 7: price it under the limits"):
        priced_steps(log, table._replace(linear_s=table.linear_s[:8]))
    with pytest.raises(BlendplanError, match=r"a step of \d+ sequences; .* of up to 3:"):
        priced_steps(log, table._replace(head_s=table.head_s[:4]))
    with pytest.raises(BlendplanError, match="counts attention by another reach"):
        priced_steps(log, table._replace(reach=LAYERS[1][0]))
