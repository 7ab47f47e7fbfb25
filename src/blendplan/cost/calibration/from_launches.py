"""Calibrate what kernel times do not have: what the steps of an engine take beside them."""

from dataclasses import replace

import numpy as np

from blendplan.cost.calibrated import WORDS, calibrated_cost
from blendplan.cost.calibration.from_steps import StepLog
from blendplan.cost.launches import LAUNCHES, Launches
from blendplan.cost.step import price_steps
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec


def has_kernels(gpu: GpuSpec) -> bool:
    """Whether any operator of a GPU was measured."""
    return any(map(gpu.fitted.get, WORDS))


def calibrate_launches(
    log: StepLog, gpu: GpuSpec, model: ModelSpec, tp: int = 1, *, by: str = ""
) -> GpuSpec:
    """The GPU with the launches that the steps of a log show beside its kernels.

    Medians of what steps take longer than their kernels: over those that decode alone, and over
    those with prompts, the first taken off, divided among the layers. They hold for other models
    too, where prices fitted to the steps alone (`calibrate_steps`) do not.

    Args:
        log: from `read_step_log`, with steps of both kinds.
        gpu: with operators.
        model, tp: what the engine ran.
        by: engine and machine of the log, in words.
    """
    kernels = {name: table for name, table in gpu.fitted.items() if name not in _OF_STEPS}
    bare = replace(gpu, fitted=kernels)
    tokens = log.prefill_tokens + log.decode_tokens
    sizes = int(tokens.max()), int(log.sequences.max())
    whole = [
        column.astype(np.int64) for column in (log.prefill_tokens, log.decode_tokens, log.sequences)
    ]
    table = calibrated_cost(model, bare, tp).step_table(*sizes)
    _, _, kernels_s = price_steps(
        table, whole[0], log.prefill_pairs, whole[1], log.kv_tokens_read, whole[2]
    )
    beside_s = log.time_s - kernels_s
    prompts = log.prefill_tokens > 0
    step_s = max(0.0, float(np.median(beside_s[~prompts]))) if not prompts.all() else 0.0
    layers_s = max(0.0, float(np.median(beside_s[prompts])) - step_s) if prompts.any() else 0.0
    found = Launches(step_s, layers_s / len(model.layers))
    source = f"{len(log)} steps of {model.name}{by and f', {by}'}"
    return replace(bare, fitted={**kernels, LAUNCHES: {"source": source, **found._asdict()}})


_OF_STEPS = (LAUNCHES, "steps")
