"""`Machine`: the hardware, model and engine limits that requests are planned for."""

from dataclasses import dataclass, replace
from pathlib import Path

from blendplan.cost.protocol import CostModel, step_table
from blendplan.cost.registry import cost_model
from blendplan.cost.step import StepTable
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.kv_capacity import kv_capacity_tokens
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.model import ModelSpec, kv_bits


@dataclass(frozen=True)
class Machine:
    """What the requests will run on: one replica of an engine.

    Attributes:
        gpu, model, tp: hardware, model and tensor-parallel degree.
        costs: what requests and steps cost.
        limits: limits of the engine.
        table: price of a step within these limits.
        kv_dtype: data type of the KV cache as it was asked for; ``model`` has it.
    """

    gpu: GpuSpec
    model: ModelSpec
    tp: int
    costs: CostModel
    limits: EngineLimits
    table: StepTable
    kv_dtype: str = "auto"


def machine(
    gpu: str | Path | GpuSpec,
    model: str | Path | ModelSpec = "llama-3.1-8b",
    *,
    tp: int = 1,
    overlap: float = 1.0,
    cost: str = "calibrated",
    kv_tokens: int | None = None,
    max_num_seqs: int = EngineLimits.max_num_seqs,
    max_num_batched_tokens: int = EngineLimits.max_num_batched_tokens,
    block_size: int = EngineLimits.block_size,
    gpu_memory_utilization: float = 0.9,
    kv_dtype: str = "auto",
) -> Machine:
    """Look up a GPU and a model and work out the limits and prices of one engine replica.

    Args:
        gpu, model: names in the catalogues, a profile, a model directory, or specifications.
        tp: tensor-parallel degree.
        overlap: overlap exponent q of the engine; 1 for stock vLLM and SGLang, ``inf`` for perfect
            overlap of compute and memory.
        cost: name of the cost model; see `COST_MODELS`.
        kv_tokens: capacity of the KV cache; worked out from the memory of the GPU without it.
        max_num_seqs, max_num_batched_tokens, block_size, gpu_memory_utilization, kv_dtype:
            engine limits, by vLLM's names.

    Raises:
        BlendplanError: an unknown name, or a model that does not fit the GPU.
    """
    gpu = gpu if isinstance(gpu, GpuSpec) else gpu_spec(gpu)
    model = model if isinstance(model, ModelSpec) else model_spec(model)
    model = replace(model, kv_bits=kv_bits(model, kv_dtype))
    if kv_tokens is None:
        kv_tokens = kv_capacity_tokens(
            model,
            gpu,
            tp=tp,
            utilisation=gpu_memory_utilization,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
            kv_dtype=kv_dtype,
            block_size=block_size,
        )
    limits = EngineLimits(kv_tokens, max_num_seqs, max_num_batched_tokens, block_size)
    costs = cost_model(cost, model, gpu, tp)
    table = step_table(costs, limits, overlap)
    return Machine(gpu, model, tp, costs, limits, table, kv_dtype)
