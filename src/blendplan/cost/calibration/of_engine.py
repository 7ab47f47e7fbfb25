"""`calibrate_engine`: from an engine's steps to prices, in the form that suits the machine."""

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibrated import has_kernels
from blendplan.cost.calibration.from_launches import calibrate_launches, kernel_table
from blendplan.cost.calibration.from_steps import StepLog, calibrate_steps
from blendplan.cost.calibration.priced_log import counts_alike, price_log
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
    small that all of its steps wait for launches, nor where the log counts attention otherwise.

    Args:
        log, model, tp, by: as of `calibrate_launches`.
        gpu: with operators or without.
    """
    if has_kernels(gpu):
        table = kernel_table(log, gpu, model, tp)
        if counts_alike(log, table) and _explain(price_log(log, table), log):
            return calibrate_launches(log, gpu, model, tp, by=by)
    return calibrate_steps(log, gpu, model, tp)


def _explain(kernels_s: NDArray[np.float64], log: StepLog) -> bool:
    """Whether steps that decode alone, or all where there are none, take what kernels do."""
    share = kernels_s / log.time_s
    alone = log.prefill_tokens == 0
    return float(np.median(share[alone] if alone.any() else share)) >= _MOST_OF_IT
