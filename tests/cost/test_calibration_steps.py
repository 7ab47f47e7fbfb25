"""From a log of engine steps to a profile that predicts other runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.cost.calibration.from_steps import (
    StepLog,
    calibrate_steps,
    read_step_log,
    unknown_machine,
)
from blendplan.cost.reach import ALL_TOKENS, reach_as_metadata
from blendplan.cost.registry import cost_model
from blendplan.cost.step import price_steps
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.profile import write_profile
from blendplan.replaying.logs import step_log_of
from tests.cli.cli_runs import answer, error_line, run
from tests.oracles.layer_kinds import reach_of

MODEL = model_spec("llama-3.1-8b")


def _steps(rng: np.random.Generator, count: int, sequences: int = 32) -> dict[str, Any]:
    """What is in some steps of an engine, as it mixes prefill and decode."""
    prefill = rng.integers(0, 2, count) * rng.integers(1, 512, count)
    decode = rng.integers(0, sequences, count)
    prefill[prefill + decode == 0] = 7
    return {
        "prefill_tokens": prefill,
        "decode_tokens": decode,
        "kv_tokens_read": decode * rng.integers(10, 900, count),
        "sequences": decode + (prefill > 0),
        "prefill_pairs": prefill * (prefill + 1) / 2,
    }


def _true_time_s(steps: dict[str, Any]) -> NDArray[np.float64]:
    """A machine with a price per token that halves after 64, and everything else."""
    tokens = steps["prefill_tokens"] + steps["decode_tokens"]
    linear_s = 6e-5 * np.minimum(tokens, 64) + 3e-5 * np.maximum(tokens - 64, 0)
    attention_s = 4e-8 * steps["kv_tokens_read"] + 2e-8 * steps["prefill_pairs"]
    return np.asarray(2e-3 + linear_s + 2e-5 * steps["sequences"] + attention_s)


def _log(steps: dict[str, Any], time_s: NDArray[np.float64]) -> StepLog:
    columns: dict[str, Any] = {n: np.asarray(c, np.float64) for n, c in steps.items()}
    return StepLog(**columns, time_s=time_s)


def _predicted_s(log: StepLog, profile: Any) -> NDArray[np.float64]:
    table = cost_model("calibrated", MODEL, profile).step_table(1024, 64)
    columns = (
        log.prefill_tokens.astype(np.int64),
        log.prefill_pairs,
        log.decode_tokens.astype(np.int64),
        log.kv_tokens_read,
        log.sequences.astype(np.int64),
    )
    return price_steps(table, *columns)[2]


def test_exact_log_gives_exact_times() -> None:
    rng = np.random.default_rng(0)
    steps = _steps(rng, 600)
    log = _log(steps, _true_time_s(steps))
    profile = calibrate_steps(log, unknown_machine("mine"), MODEL)
    assert profile.fitted["steps"]["knots_tokens"][:3] == [0.0, 16.0, 64.0]
    np.testing.assert_allclose(_predicted_s(log, profile), log.time_s, rtol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.3), st.floats(0.0, 0.02), st.floats(2.0, 10.0))
def test_noisy_log_predicts_the_total_of_another_run(
    seed: int, noise: float, stalls: float, slowdown: float
) -> None:
    """Log-normal noise and rare stalls, both in the log and in the run that is predicted.

    No closer than such totals are to each other: to a hundredth and eight standard errors of them.
    """
    rng = np.random.default_rng(seed)
    mean = np.exp(noise**2 / 2) * (1 + stalls * (slowdown - 1))
    square = np.exp(2 * noise**2) * (1 + stalls * (slowdown**2 - 1))
    deviation = np.sqrt(max(0.0, square - mean**2)) / mean

    def standard_error(time_s: NDArray[np.float64]) -> float:
        """Of the total of noisy steps, as a share of it."""
        return float(deviation * np.sqrt((time_s**2).sum()) / time_s.sum())

    def measured(steps: dict[str, Any]) -> NDArray[np.float64]:
        time_s = _true_time_s(steps) * rng.lognormal(0.0, noise, len(steps["sequences"]))
        time_s[rng.random(len(time_s)) < stalls] *= slowdown
        return time_s

    steps = _steps(rng, 8_000)
    profile = calibrate_steps(_log(steps, measured(steps)), unknown_machine("mine"), MODEL)
    other = _steps(rng, 8_000, sequences=12)
    log, true_s = _log(other, measured(other)), _true_time_s(other)
    predicted_s = _predicted_s(log, profile).sum()
    here, there = standard_error(_true_time_s(steps)), standard_error(true_s)
    assert predicted_s == pytest.approx(mean * true_s.sum(), rel=0.01 + 8 * here)
    assert predicted_s == pytest.approx(log.time_s.sum(), rel=0.01 + 8 * np.hypot(here, there))


def test_stalls_do_not_bend_the_prices() -> None:
    rng = np.random.default_rng(3)
    steps = _steps(rng, 3000)
    time_s = _true_time_s(steps)
    time_s[::25] *= 30.0
    profile = calibrate_steps(_log(steps, time_s), unknown_machine("mine"), MODEL)
    fitted = profile.fitted["steps"]
    assert fitted["step_s"] == pytest.approx(2e-3, rel=0.1)
    assert fitted["kv_token_s"] == pytest.approx(4e-8, rel=0.1)
    assert fitted["stall_share"] > 0.4


def test_prices_are_never_negative() -> None:
    rng = np.random.default_rng(4)
    steps = _steps(rng, 200)
    profile = calibrate_steps(_log(steps, rng.random(200)), unknown_machine("mine"), MODEL)
    fitted = profile.fitted["steps"]
    assert min(*fitted["token_s"], fitted["step_s"], fitted["kv_token_s"]) >= 0


def test_demand_counts_every_token_and_read() -> None:
    steps = _steps(np.random.default_rng(5), 600)
    gpu = calibrate_steps(_log(steps, _true_time_s(steps)), unknown_machine("mine"), MODEL)
    cost = cost_model("calibrated", MODEL, gpu)
    compute_s, memory_s = cost.demand([100], [50])
    token_s = (64 * 6e-5 + (4096 - 64) * 3e-5) / 4096
    assert compute_s[0] == pytest.approx(150 * token_s + 50 * 2e-5 + 5050 * 2e-8, rel=0.01)
    assert memory_s[0] == pytest.approx((100 * 50 + 50 * 50 / 2) * 4e-8, rel=0.01)
    assert cost.name == "calibrated"
    assert cost.parameters()["step_s"] == gpu.fitted["steps"]["step_s"]


def _write(path: Path, **changes: Any) -> Path:
    steps = _steps(np.random.default_rng(6), 300)
    columns = {**steps, "time_s": _true_time_s(steps), **changes}
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


def test_profile_through_the_command_plans(tmp_path: Path) -> None:
    log, profile = _write(tmp_path / "steps.parquet"), tmp_path / "mine.toml"
    found = answer("calibrate", "--steps", log, "-o", profile)
    assert found["steps"]["steps"] == 300
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"prompt_token_ids": [1, 2, 3], "output_tokens": 4}\n')
    machine = ("--gpu", profile, "--cost", "calibrated", "--policy", "fcfs")
    planned = answer(
        "plan", requests, *machine, "--kv-tokens", "4096", "-o", tmp_path / "plan.arrow"
    )
    # Four steps of 2 ms, and next to nothing else.
    assert planned["predicted"]["makespan_s"] == pytest.approx(4 * 2e-3, rel=0.1)
    result = run("plan", requests, *machine, "-o", tmp_path / "plan.arrow")
    assert result.exit_code == 1
    assert "states no memory_bytes; state the capacity" in error_line(result)


def test_prices_that_explain_nothing_are_warned_of(tmp_path: Path) -> None:
    times = np.random.default_rng(1).lognormal(-4.0, 3.0, 300)
    doubted = _write(tmp_path / "doubted.parquet", time_s=times)
    warned = run("calibrate", "--steps", doubted, "-o", tmp_path / "mine.toml")
    assert warned.exit_code == 0
    assert "these prices explain little of the steps" in warned.stderr
    sound = run("calibrate", "--steps", _write(tmp_path / "s.parquet"), "-o", tmp_path / "s.toml")
    assert sound.stderr == ""


def test_profile_on_a_base_keeps_its_datasheet(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    steps = _steps(np.random.default_rng(7), 300)
    base = gpu_spec("l4")
    write_profile(calibrate_steps(_log(steps, _true_time_s(steps)), base, MODEL), profile)
    assert gpu_spec(profile).memory_bytes == base.memory_bytes


def test_a_log_holds_for_its_model_alone() -> None:
    steps = _steps(np.random.default_rng(8), 300)
    gpu = calibrate_steps(_log(steps, _true_time_s(steps)), unknown_machine("mine"), MODEL)
    with pytest.raises(BlendplanError, match=r"with llama-3.1-8b on 1 GPUs, not qwen-3-8b"):
        cost_model("calibrated", model_spec("qwen-3-8b"), gpu)
    with pytest.raises(BlendplanError, match="on 2; record one"):
        cost_model("calibrated", MODEL, gpu, tp=2)


def test_other_models_are_priced_by_the_operators_beside_a_log() -> None:
    """Where there are fitted ones; their source is still theirs."""
    steps = _steps(np.random.default_rng(8), 300)
    base, other = gpu_spec("h100-80g"), model_spec("qwen-3-8b")
    gpu = calibrate_steps(_log(steps, _true_time_s(steps)), base, MODEL)
    own = cost_model("calibrated", MODEL, gpu)
    assert (own.parameters()["measured"], own.note) == (["steps"], "")
    assert own.parameters()["source"] == "300 steps of llama-3.1-8b"
    for model, tp in ((other, 1), (MODEL, 2)):
        found, wanted = (
            cost_model("calibrated", model, gpu, tp),
            cost_model("calibrated", model, base, tp),
        )
        assert found.parameters() == wanted.parameters()
        np.testing.assert_array_equal(
            found.step_table(64, 8).linear_s, wanted.step_table(64, 8).linear_s
        )
        assert found.note == (
            f"the steps in GPU profile h100-80g are of llama-3.1-8b on 1 GPUs: the times of "
            f"{model.name} on {tp} follow from its kernels"
        )
    unfitted = calibrate_steps(_log(steps, _true_time_s(steps)), gpu_spec("l4"), MODEL)
    with pytest.raises(BlendplanError, match="not qwen-3-8b on 1; record one"):
        cost_model("calibrated", other, unfitted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_s": None}, "has no column 'time_s'"),
        ({"sequences": ["many"] * 300}, "sequences is string; expected numbers"),
        ({"kv_tokens_read": [-1] * 300}, "kv_tokens_read is -1 in row 0; expected numbers from 0"),
        ({"time_s": [1.0] * 299 + [float("nan")]}, "time_s is nan in row 299"),
        ({"time_s": [1.0] * 299 + [None]}, "time_s is nan in row 299"),
        ({"prefill_tokens": [1e300] * 300}, r"prefill_tokens is 1e\+300 in row 0"),
        ({"end_s": [float("inf")] * 300}, "end_s is inf in row 0"),
        ({"time_s": [0.0] * 300}, "has 0 steps with tokens and a time; at least 20"),
    ],
)
def test_bad_logs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BlendplanError, match=message):
        read_step_log(_write(tmp_path / "steps.parquet", **changes))


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="no such file"):
        read_step_log(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("steps")
    with pytest.raises(BlendplanError, match="cannot be read as Parquet"):
        read_step_log(tmp_path / "text.parquet")


def test_time_between_steps_counts(tmp_path: Path) -> None:
    """A second log appended to the first starts its clock anew."""
    steps = {"prefill_tokens": 1, "decode_tokens": 2, "kv_tokens_read": 9, "sequences": 3}
    rows = [{**steps, "time_s": 1.0, "end_s": end_s} for end_s in range(2, 60, 2)]
    pq.write_table(pa.Table.from_pylist(rows + rows), tmp_path / "steps.parquet")
    time_s = read_step_log(tmp_path / "steps.parquet").time_s
    once = [1.0] + [2.0] * (len(rows) - 1)
    assert time_s.tolist() == once + once


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.0, 3.0))
def test_no_moment_counts_twice(
    tmp_path: Path, seed: int, most_together: int, delay_s: float
) -> None:
    """Steps that are logged several at once, and late, take as long as their run, to a report."""
    rng = np.random.default_rng(seed)
    time_s, pause_s = rng.uniform(0.5, 1.5, 300), rng.choice([0.0, 0.0, 0.7], 300)
    true_s = np.cumsum(time_s + pause_s)
    reports = np.array_split(np.arange(300), max(1, 300 // most_together))
    logged = [[true_s[one[-1]] + delay_s * rng.random()] * len(one) for one in reports]
    end_s = np.maximum.accumulate(np.concatenate(logged))
    work = {"prefill_tokens": 1, "decode_tokens": 2, "kv_tokens_read": 9, "sequences": 3}
    columns = {name: [number] * 300 for name, number in work.items()}
    pq.write_table(pa.table(columns | {"time_s": time_s, "end_s": end_s}), tmp_path / "s.parquet")
    found = read_step_log(tmp_path / "s.parquet").time_s
    assert (found >= time_s * (1 - 1e-12)).all()
    longest = max(time_s[one].sum() + pause_s[one].sum() for one in reports)
    assert abs(found.sum() - true_s[-1]) <= longest + delay_s + 1e-9


def test_logs_without_pairs_are_fine(tmp_path: Path) -> None:
    log = read_step_log(_write(tmp_path / "steps.parquet", prefill_pairs=None))
    assert not log.prefill_pairs.any()


def test_a_log_says_by_which_reach_it_counts(tmp_path: Path) -> None:
    """Prices of its reads are prices of reads that are counted so."""
    reach = reach_of((0, False, 0.25, 0.5), (128, False, 0.75, 0.5))
    rng = np.random.default_rng(0)
    steps = _steps(rng, 600)
    table = pa.table(steps | {"time_s": _true_time_s(steps)})
    with_reach = table.replace_schema_metadata(step_log_of(reach).metadata)
    pq.write_table(with_reach, tmp_path / "steps.parquet")
    log = read_step_log(tmp_path / "steps.parquet")
    assert reach_as_metadata(log.reach) == reach_as_metadata(reach)
    write_profile(calibrate_steps(log, unknown_machine("mine"), MODEL), tmp_path / "mine.toml")
    cost = cost_model("calibrated", MODEL, gpu_spec(tmp_path / "mine.toml"))
    priced = cost.step_table(1024, 64)
    assert reach_as_metadata(priced.reach) == reach_as_metadata(reach)
    assert priced.decode_attention[0] == pytest.approx(4e-8, rel=1e-4)
    _, memory_s = cost.demand([1000], [1])
    assert memory_s[0] == pytest.approx(4e-8 * (0.5 * 1000.5 + 0.5 * 128), rel=1e-4)


def test_a_log_without_a_reach_counts_all_tokens(tmp_path: Path) -> None:
    assert read_step_log(_write(tmp_path / "steps.parquet")).reach is ALL_TOKENS
    assert step_log_of(ALL_TOKENS).metadata is None


@pytest.mark.parametrize("text", ["{", "[]", '{"tokens": [1]}'])
def test_bad_reaches_of_logs(tmp_path: Path, text: str) -> None:
    steps = _steps(np.random.default_rng(0), 60)
    table = pa.table(steps | {"time_s": _true_time_s(steps)})
    pq.write_table(table.replace_schema_metadata({"reach": text}), tmp_path / "steps.parquet")
    with pytest.raises(BlendplanError, match=r"steps\.parquet: reach: expected the columns"):
        read_step_log(tmp_path / "steps.parquet")


@pytest.mark.parametrize("steps", [3, {}, {"step_s": 1.0}])
def test_bad_step_tables_in_a_profile(steps: object) -> None:
    from dataclasses import replace

    gpu = replace(unknown_machine("mine"), fitted={"steps": steps})
    with pytest.raises(BlendplanError, match=r"fitted\.steps: expected the numbers"):
        cost_model("calibrated", MODEL, gpu)


def test_a_price_of_prompts_that_is_no_number() -> None:
    ones = np.ones(20)
    log = StepLog(ones, ones, ones, ones, ones, ones)
    gpu = calibrate_steps(log, unknown_machine("mine"), MODEL)
    assert cost_model("calibrated", MODEL, gpu).name == "calibrated"
    gpu.fitted["steps"]["prefill_step_s"] = "much"
    with pytest.raises(BlendplanError, match=r"fitted\.steps: expected a number prefill_step_s"):
        cost_model("calibrated", MODEL, gpu)


def test_other_cost_models_say_what_is_missing() -> None:
    with pytest.raises(BlendplanError, match="states no flop_per_s"):
        cost_model("datasheet", MODEL, unknown_machine("mine"))
    with pytest.raises(BlendplanError, match="states no flop_per_s"):
        cost_model("calibrated", MODEL, unknown_machine("mine"))
