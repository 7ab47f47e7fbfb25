"""`Machine`: the hardware, model and engine limits that requests are planned for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.arguments import flag, keywords, number, one_of, text, whole
from blendplan.cost.protocol import CostModel, step_table
from blendplan.cost.registry import COST_MODELS, cost_model
from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import GPU_MEMORY_UTILIZATION, EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.kv_capacity import kv_capacity_tokens
from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import KvLayout, kv_layout
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.hardware.model import KV_BITS, ModelSpec, kv_bits


@dataclass(frozen=True)
class Machine:
    """What the requests will run on: one replica of an engine.

    Attributes:
        gpu, model, tp: hardware, model and tensor-parallel degree.
        costs: what requests and steps cost.
        limits: limits of the engine; ``block_size`` is that of the layout.
        table: price of a step within these limits.
        layout: of the KV cache, whose capacity is in slots; see `KvLayout`.
        max_model_len: longest context that the engine takes, prompt and output together.
        kv_dtype: data type of the KV cache as it was asked for; ``model`` has it.
        asked_block_size: tokens of a block as they were asked for; states may need larger blocks.
        gpu_memory_utilization: share of the GPU's memory that the engine may use; None where the
            size of the KV cache was given.
    """

    gpu: GpuSpec
    model: ModelSpec
    tp: int
    costs: CostModel
    limits: EngineLimits
    table: StepTable
    layout: KvLayout
    max_model_len: int
    kv_dtype: str = "auto"
    asked_block_size: int = EngineLimits.block_size
    gpu_memory_utilization: float | None = None

    @property
    def longest_request(self) -> int:
        """Most tokens of one request that the KV cache has room for."""
        return self.layout.longest_request(self.limits.kv_blocks)

    def room_for_output(self, prompt_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Longest output beside each prompt: what KV cache and context leave; int64 [n].

        The last generated token is never written to the cache.
        """
        longest = min(self.longest_request + 1, self.max_model_len)
        return longest - prompt_tokens


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
    async_scheduling: bool = EngineLimits.async_scheduling,
    max_model_len: int | None = None,
    gpu_memory_utilization: float = GPU_MEMORY_UTILIZATION,
    kv_dtype: str = "auto",
    layout: KvLayout | None = None,
) -> Machine:
    """Look up a GPU and a model and work out the limits and prices of one engine replica.

    Args:
        gpu, model: names in the catalogues, a profile, a model directory, or specifications.
        tp: tensor-parallel degree.
        overlap: overlap exponent q of the engine; 1 for stock vLLM and SGLang, ``inf`` for perfect
            overlap of compute and memory.
        cost: name of the cost model; see `COST_MODELS`.
        kv_tokens: capacity of the KV cache; worked out from the memory of the GPU without it.
        max_model_len: longest context, prompt and output together; the model's without it.
        max_num_seqs, max_num_batched_tokens, block_size, async_scheduling,
            gpu_memory_utilization, kv_dtype: engine limits, by vLLM's names.
        layout: of the KV cache; the one that vLLM gives the model without it.

    Raises:
        BlendplanError: an unknown name, a number out of its range (see `RANGES`), or a model that
            does not fit the GPU.
    """
    tp = whole("tp", tp)
    overlap = number("overlap", overlap, 1.0, math.inf)
    COST_MODELS.check(text("cost", cost, "give the name of a cost model"))
    max_num_seqs = whole("max_num_seqs", max_num_seqs)
    max_num_batched_tokens = whole("max_num_batched_tokens", max_num_batched_tokens)
    block_size = whole("block_size", block_size)
    async_scheduling = flag("async_scheduling", async_scheduling)
    gpu_memory_utilization = number(
        "gpu_memory_utilization", gpu_memory_utilization, 0.0, 1.0, above_least=True
    )
    kv_dtype = one_of("kv_dtype", kv_dtype, ("auto", *KV_BITS))
    gpu = gpu if isinstance(gpu, GpuSpec) else gpu_spec(gpu)
    model = model if isinstance(model, ModelSpec) else model_spec(model)
    model = replace(model, kv_bits=kv_bits(model, kv_dtype))
    longest = model.max_context_tokens if max_model_len is None else max_model_len
    longest = whole("max_model_len", longest)
    if layout is None:
        steps_under_way = 2 if async_scheduling else 1
        layout = kv_layout(kv_layers(model, tp=tp, kv_dtype=kv_dtype), block_size).limited(
            in_flight_tokens=steps_under_way * max_num_batched_tokens, max_model_len=longest
        )
    utilisation = None
    if kv_tokens is None:
        utilisation = gpu_memory_utilization
        kv_tokens = kv_capacity_tokens(
            model,
            gpu,
            layout,
            tp=tp,
            utilisation=gpu_memory_utilization,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        )
    limits = EngineLimits(
        kv_tokens, max_num_seqs, max_num_batched_tokens, layout.block_tokens, async_scheduling
    )
    try:
        costs = cost_model(cost, model, gpu, tp)
        table = step_table(costs, limits, overlap)
    except BlendplanError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BlendplanError(
            f"what was fitted for GPU {gpu.name} gives no prices "
            f"({type(error).__name__}: {error}); calibrate it again, or plan with "
            "the cost model datasheet"
        ) from error
    _check_prices(table, gpu)
    return Machine(
        *(gpu, model, tp, costs, limits, table, layout, longest, kv_dtype, block_size),
        gpu_memory_utilization=utilisation,
    )


def _check_prices(table: StepTable, gpu: GpuSpec) -> None:
    """Refuse prices under which a simulated run would never end."""
    prices = (*table[:4], np.array(table.step_s))
    if not all(np.all((price >= 0) & (price < np.inf)) for price in prices) or not np.all(
        table.linear_s[1:] + table.step_s > 0
    ):
        raise BlendplanError(
            f"by what is known of GPU {gpu.name}, steps take no time, or take it back; check the "
            "profile, or calibrate it again"
        )


def check_engine_arguments(of: str, given: Mapping[str, Any]) -> None:
    """Refuse keyword arguments of a planning function that `machine` does not take.

    Raises:
        BlendplanError: an unknown name, with the nearest ones.
    """
    keywords(of, given, list(signature(machine).parameters)[2:])
