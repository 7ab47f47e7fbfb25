"""`COST_MODELS`: the ways of pricing requests and steps, by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.names import Registry

if TYPE_CHECKING:
    from blendplan.cost.protocol import CostModel

COST_MODELS: "Registry[Callable[[ModelSpec, GpuSpec, int], CostModel]]" = Registry(
    "cost model",
    "blendplan.cost_models",
    {
        "calibrated": "blendplan.cost.fitted:fitted_cost",
        "datasheet": "blendplan.cost.datasheet:datasheet_cost",
    },
)


def cost_model(name: str, model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> "CostModel":
    """The cost model of that name for a model on ``tp`` GPUs.

    Raises:
        BlendplanError: unknown name, or a GPU that does not state what the cost model needs.
    """
    costs = COST_MODELS.get(name)(model, gpu, tp)
    if costs.name != name:
        raise BlendplanError(
            f"the cost model {name!r} calls itself {costs.name!r}; its `name` must be the one that "
            f"it is registered by, so that plans find it again"
        )
    return costs
