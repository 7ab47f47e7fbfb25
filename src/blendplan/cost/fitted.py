"""`fitted_cost`: the cost model ``calibrated``, by the best measurements that a GPU comes with."""

from blendplan.cost.calibrated import CalibratedCost, calibrated_cost
from blendplan.cost.measured_steps import StepLogCost, step_log_cost
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec


def fitted_cost(model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> CalibratedCost | StepLogCost:
    """By the step log in the GPU's profile where it has one, else by its operator models.

    Raises:
        BlendplanError: as `step_log_cost` and `calibrated_cost`.
    """
    if "steps" in gpu.fitted:
        return step_log_cost(model, gpu, tp)
    return calibrated_cost(model, gpu, tp)
