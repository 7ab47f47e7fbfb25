"""Cost: what a request, a step and a whole run cost on a GPU.

In go names of a GPU and a model; out come specifications, KV-cache capacity, a `CostModel`, its
`StepTable` for hot loops, and the lower bound on any schedule's makespan. Knows nothing of
policies or engines.
"""

from blendplan.cost.bound import Bound, LeastPrefill, least_prefill, makespan_bound
from blendplan.cost.calibrated import CalibratedCost, calibrated_cost
from blendplan.cost.cost_model import COST_MODELS, CostModel, cost_model
from blendplan.cost.datasheet import DatasheetCost, datasheet_cost
from blendplan.cost.gpu import GpuSpec, gpu_names, gpu_spec
from blendplan.cost.memory import kv_capacity_tokens, kv_tokens_in
from blendplan.cost.model import LinearShape, ModelSpec, linear_shapes, model_names, model_spec
from blendplan.cost.step import StepTable, price_steps, step_times

__all__ = [
    "COST_MODELS",
    "Bound",
    "CalibratedCost",
    "CostModel",
    "DatasheetCost",
    "GpuSpec",
    "LeastPrefill",
    "LinearShape",
    "ModelSpec",
    "StepTable",
    "calibrated_cost",
    "cost_model",
    "datasheet_cost",
    "gpu_names",
    "gpu_spec",
    "kv_capacity_tokens",
    "kv_tokens_in",
    "least_prefill",
    "linear_shapes",
    "makespan_bound",
    "model_names",
    "model_spec",
    "price_steps",
    "step_times",
]
