"""Calibrate what kernel times do not have: what the steps of an engine take beside them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibrated import calibrated_cost
from blendplan.cost.calibration.from_steps import StepLog
from blendplan.cost.launches import LAUNCHES, Launches
from blendplan.cost.step import price_steps
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec

_OF_STEPS = (LAUNCHES, "steps")


def calibrate_launches(
    log: StepLog, gpu: GpuSpec, model: ModelSpec, tp: int = 1, *, by: str = ""
) -> GpuSpec:
    """The GPU with the launches that the steps of a log show beside its kernels.

    Medians of what steps take longer than their kernels: over those that decode alone, and over
    those with prompts, the first taken off, divided among the layers.

    Args:
        log: from `read_step_log`, with steps of both kinds.
        gpu: with operators.
        model, tp: what the engine ran.
        by: engine and machine of the log, in words.
    """
    beside_s = log.time_s - kernel_times(log, gpu, model, tp)
    prompts = log.prefill_tokens > 0
    step_s = max(0.0, float(np.median(beside_s[~prompts]))) if not prompts.all() else 0.0
    layers_s = max(0.0, float(np.median(beside_s[prompts])) - step_s) if prompts.any() else 0.0
    found = Launches(step_s, layers_s / len(model.layers))
    source = f"{len(log)} steps of {model.name}{by and f', {by}'}"
    launches = {"source": source, **found._asdict()}
    return replace(gpu, fitted={**_kernels_alone(gpu).fitted, LAUNCHES: launches})


def kernel_times(log: StepLog, gpu: GpuSpec, model: ModelSpec, tp: int = 1) -> NDArray[np.float64]:
    """What the kernels of each step take, in seconds; float64 [steps]."""
    prefill, decode, sequences = (
        column.astype(np.int64) for column in (log.prefill_tokens, log.decode_tokens, log.sequences)
    )
    cost = calibrated_cost(model, _kernels_alone(gpu), tp)
    table = cost.step_table(int((prefill + decode).max()), int(sequences.max()))
    _, _, time_s = price_steps(
        table, prefill, log.prefill_pairs, decode, log.kv_tokens_read, sequences
    )
    return time_s


def _kernels_alone(gpu: GpuSpec) -> GpuSpec:
    """Without what was fitted to steps."""
    fitted = {name: table for name, table in gpu.fitted.items() if name not in _OF_STEPS}
    return replace(gpu, fitted=fitted)
