"""What steps take beside their kernels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blendplan.cost.calibrated import calibrated_cost
from blendplan.cost.calibration.from_launches import calibrate_launches
from blendplan.cost.calibration.from_steps import StepLog, unknown_machine
from blendplan.cost.calibration.of_engine import calibrate_engine
from blendplan.cost.launches import Launches, launches_of
from blendplan.cost.reach import Reach
from blendplan.cost.step import StepTable, price_steps
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.profile import write_profile

MODEL = model_spec("llama-3.1-8b")
STEP_S, LAYER_S = 4e-4, 2e-4


@pytest.fixture
def bare() -> GpuSpec:
    """A GPU whose kernels alone are known."""
    gpu = gpu_spec("h100-80g")
    return replace(gpu, fitted={k: v for k, v in gpu.fitted.items() if k != "launches"})


def table_of(gpu: GpuSpec) -> StepTable:
    return calibrated_cost(MODEL, gpu).step_table(2048, 256)


def log_of(table: StepTable, *, prompts: bool = True, seed: int = 0) -> StepLog:
    """Steps with the launches above, one in twenty of which took much longer."""
    rng = np.random.default_rng(seed)
    decode = rng.integers(1, 200, 400)
    prefill = np.where(rng.random(400) < 0.3, rng.integers(1, 1500, 400), 0) * prompts
    pairs, read = prefill * np.float64(50.0), decode * np.float64(300.0)
    sequences = decode + (prefill > 0)
    _, _, kernels_s = price_steps(table, prefill, pairs, decode, read, sequences)
    time_s = kernels_s + STEP_S + (prefill > 0) * LAYER_S * len(MODEL.layers)
    time_s = np.where(rng.random(400) < 0.05, 5.0 * time_s, time_s)
    return StepLog(
        prefill_tokens=prefill.astype(np.float64),
        decode_tokens=decode.astype(np.float64),
        kv_tokens_read=read,
        sequences=sequences.astype(np.float64),
        time_s=time_s,
        prefill_pairs=pairs,
    )


def test_launches_are_found_again_whatever_was_known_before(bare: GpuSpec) -> None:
    log = log_of(table_of(bare))
    found = calibrate_launches(log, bare, MODEL, by="an engine")
    assert launches_of(found) == pytest.approx(Launches(STEP_S, LAYER_S), rel=0.1)
    assert found.fitted["launches"]["source"] == "400 steps of llama-3.1-8b, an engine"
    again = calibrate_launches(log, found, MODEL)
    assert launches_of(again) == launches_of(found)


def test_a_log_without_prompts_says_nothing_of_them(bare: GpuSpec) -> None:
    found = launches_of(calibrate_launches(log_of(table_of(bare), prompts=False), bare, MODEL))
    assert found.step_s == pytest.approx(STEP_S, rel=0.1)
    assert found.layer_s == 0.0


def test_launches_are_paid_once_a_step(bare: GpuSpec, tmp_path: Path) -> None:
    fitted = {**bare.fitted, "launches": {"step_s": STEP_S, "layer_s": LAYER_S}}
    write_profile(replace(bare, fitted=fitted), tmp_path / "with.toml")
    with_, without = table_of(gpu_spec(tmp_path / "with.toml")), table_of(bare)
    for prefill, decode in ((0, 7), (5, 7), (900, 0)):
        work = [np.array([value]) for value in (prefill, 0.0, decode, 0.0, 1)]
        more_s = price_steps(with_, *work)[2][0] - price_steps(without, *work)[2][0]
        layers = len(MODEL.layers) if prefill else 0
        assert more_s == pytest.approx(STEP_S + LAYER_S * layers)


@pytest.mark.parametrize("table", [3, {"step_s": 1.0}, {"step_s": -1.0, "layer_s": 0.0}])
def test_bad_launches_are_refused(bare: GpuSpec, table: object) -> None:
    with pytest.raises(BlendplanError, match=r"h100-80g: fitted\.launches"):
        table_of(replace(bare, fitted={**bare.fitted, "launches": table}))


def test_steps_that_kernels_do_not_explain_are_priced_as_a_whole(bare: GpuSpec) -> None:
    log = log_of(table_of(bare))
    assert set(calibrate_engine(log, bare, MODEL).fitted) == {*bare.fitted, "launches"}
    slow = replace(log, time_s=10.0 * log.time_s)
    half = np.full(2, 0.5)
    window = Reach(np.array([0, 64]), np.zeros(2, np.bool_), half, half)
    windowed = replace(log, reach=window)
    for gpu, steps in ((bare, slow), (unknown_machine("cpu"), log), (bare, windowed)):
        assert set(calibrate_engine(steps, gpu, MODEL).fitted) == {*gpu.fitted, "steps"}
