"""Calibrate what kernel times do not have: what the steps of an engine take beside them."""

from dataclasses import replace

import numpy as np

from blendplan.cost.calibrated import calibrated_cost
from blendplan.cost.calibration.from_steps import StepLog
from blendplan.cost.calibration.priced_log import price_log
from blendplan.cost.launches import LAUNCHES, Launches
from blendplan.cost.step import StepTable
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

    Raises:
        BlendplanError: the log counts by another reach than the kernels; see `counts_alike`.
    """
    beside_s = log.time_s - price_log(log, kernel_table(log, gpu, model, tp))
    prompts = log.prefill_tokens > 0
    step_s = max(0.0, float(np.median(beside_s[~prompts]))) if not prompts.all() else 0.0
    layers_s = max(0.0, float(np.median(beside_s[prompts])) - step_s) if prompts.any() else 0.0
    found = Launches(step_s, layers_s / len(model.layers))
    source = f"{len(log)} steps of {model.name}{by and f', {by}'}"
    launches = {"source": source, **found._asdict()}
    return replace(gpu, fitted={**gpu.without(*_OF_STEPS).fitted, LAUNCHES: launches})


def kernel_table(log: StepLog, gpu: GpuSpec, model: ModelSpec, tp: int = 1) -> StepTable:
    """Prices of the steps of a log by the kernels of a GPU alone."""
    tokens = int((log.prefill_tokens + log.decode_tokens).max())
    cost = calibrated_cost(model, gpu.without(*_OF_STEPS), tp)
    return cost.step_table(tokens, int(log.sequences.max()))
