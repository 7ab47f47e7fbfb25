"""`CostModel`: what every way of pricing requests and steps offers; and how one is picked."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec

COST_MODELS = ("calibrated", "datasheet")


class CostModel(Protocol):
    """Prices of one model on one GPU (or tensor-parallel group of GPUs)."""

    @property
    def name(self) -> str:
        """Name of the cost model, one of `COST_MODELS`."""
        ...

    @property
    def note(self) -> str:
        """What a user should know of how far to trust the prices, one line, or empty."""
        ...

    def parameters(self) -> dict[str, Any]:
        """Everything the prices follow from, as JSON values."""
        ...

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of compute and of memory traffic that n requests need; float64 [n] each.

        Prompts count in full: prefix sharing is the caller's to subtract.
        """
        ...

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """Prices of steps up to that many tokens and sequences under overlap exponent q."""
        ...


def cost_model(name: str, model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> CostModel:
    """The cost model of that name; ``calibrated`` uses the step log in a profile if it has one.

    Raises:
        BlendplanError: unknown name, or a GPU that does not state what the cost model needs.
    """
    if name == "datasheet":
        from blendplan.cost.datasheet import datasheet_cost

        return datasheet_cost(model, gpu, tp)
    if name == "calibrated" and "steps" in gpu.fitted:
        from blendplan.cost.measured_steps import step_log_cost

        return step_log_cost(model, gpu, tp)
    if name == "calibrated":
        from blendplan.cost.calibrated import calibrated_cost

        return calibrated_cost(model, gpu, tp)
    raise BlendplanError(f"unknown cost model {name!r}: known are {', '.join(COST_MODELS)}")
