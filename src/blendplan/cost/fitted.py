"""`fitted_cost`: the cost model ``calibrated``, by the best measurements that a GPU comes with."""

from blendplan.cost.calibrated import CalibratedCost, calibrated_cost, has_kernels
from blendplan.cost.measured_steps import StepLogCost, recorded_with, step_log_cost
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec


def fitted_cost(model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> CalibratedCost | StepLogCost:
    """By the step log in the GPU's profile where it is of this model, else by operator models.

    A log knows what the engine adds to its kernels, but of one model alone; others are priced by
    the operators that the profile has beside it.

    Raises:
        BlendplanError: as `step_log_cost` and `calibrated_cost`; a log of another model without
            fitted operators.
    """
    steps = gpu.fitted.get("steps")
    if steps is None or (has_kernels(gpu) and not recorded_with(steps, model, tp)):
        return calibrated_cost(model, gpu, tp)
    return step_log_cost(model, gpu, tp)
