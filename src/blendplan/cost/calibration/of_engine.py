"""`calibrate_engine`: from an engine's steps to prices, in the form that suits the machine."""

import numpy as np

from blendplan.cost.calibrated import WORDS
from blendplan.cost.calibration.from_launches import calibrate_launches, kernel_times
from blendplan.cost.calibration.from_steps import StepLog, calibrate_steps
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec

# Share of the time of a step that kernels must explain.
_MOST_OF_IT = 0.5


def calibrate_engine(
    log: StepLog, gpu: GpuSpec, model: ModelSpec, tp: int = 1, *, by: str = ""
) -> GpuSpec:
    """The GPU with launches beside its kernels, or with prices of steps as a whole.

    Kernels and two numbers foretell other steps better than a fit to all of them (docs/proof.md),
    and other models too, where steps take what kernels do: so not on a CPU, nor with a model so
    small that all of its steps wait for launches.

    Args:
        log, model, tp, by: as of `calibrate_launches`.
        gpu: with operators or without.
    """
    if any(map(gpu.fitted.get, WORDS)):
        explained = kernel_times(log, gpu, model, tp) / log.time_s
        alone = log.prefill_tokens == 0
        if float(np.median(explained[alone] if alone.any() else explained)) >= _MOST_OF_IT:
            return calibrate_launches(log, gpu, model, tp, by=by)
    return calibrate_steps(log, gpu, model, tp)
