"""`describe`: all that a plan says of itself besides its rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.cost.reach import reach_as_metadata, sees_all
from blendplan.hardware.lookup import known_model
from blendplan.hardware.model_json import model_as_json
from blendplan.hardware.profile import catalogued, profile_text
from blendplan.planning.prepare import Prepared
from blendplan.planning.run_policy import Prediction
from blendplan.policy.holding import GROWS_BY_ONE
from blendplan.policy.known import PolicyInput
from blendplan.requests.source_columns import schema_text
from blendplan.simulator.cuda_graphs import StepSizes
from blendplan.simulator.engine_graphs import ENGINE_GRAPHS


def describe(
    prepared: Prepared,
    target: Machine,
    policy: str,
    prediction: Prediction,
) -> dict[str, Any]:
    """Everything a plan says of itself besides its rows; JSON values only, and deterministic."""
    run, bound = prediction.run, prediction.bound
    requests = prepared.requests
    sizes = StepSizes(_numbers(run.mixed_steps), _numbers(run.decode_steps))
    return {
        "requests": len(requests),
        **({} if requests.answers is None else {"sequences": len(prepared.sequences)}),
        **_repeats(prepared),
        "replicas": prediction.replicas,
        "policy": policy,
        "policy_parameters": dict(prediction.parameters),
        "seed": prepared.seed,
        "replan": prediction.replan,
        "step_prices": prepared.expected.prices._asdict(),
        **_layers(prepared.expected),
        "gpu": target.gpu.name,
        "gpu_profile": None if catalogued(target.gpu) else profile_text(target.gpu),
        "model": target.model.name,
        "model_shape": None if known_model(target.model) else model_as_json(target.model),
        "tp": target.tp,
        "overlap": _json_number(target.table.overlap),
        "cost_model": {
            "name": target.costs.name,
            "parameters": target.costs.parameters(),
            "note": target.costs.note,
        },
        "engine": engine_metadata(target, sizes),
        "density": prepared.expected.root_density,
        "prefix_sharing": {"planned": run.prefix_sharing, "optimal": prepared.sharing},
        "lengths": {
            "note": prepared.lengths.note,
            "estimated_prompts": requests.estimated_tokens,
            "total": None if prepared.lengths.total is None else prepared.lengths.total.as_dict(),
        },
        "predicted": {
            "makespan_s": run.makespan_s,
            "throughput_tokens_per_s": run.throughput_tokens_per_s,
            "steps": run.steps,
            "preemptions": run.preemptions,
            "prompt_tokens": run.prompt_tokens,
            "output_tokens": run.output_tokens,
            "prefill_tokens": run.prefill_tokens,
            "compute_s": run.compute_s,
            "memory_s": run.memory_s,
            "turnaround_s": run.turnaround_s(),
            **_chances(prediction),
        },
        **({} if prediction.trade is None else {"tail": prediction.trade}),
        "bound_s": bound.makespan_s,
        "bound_ratio": bound.makespan_s / run.makespan_s if run.makespan_s > 0 else 1.0,
        "series": {name: [float(v) for v in values] for name, values in run.series.items()},
        "request_file_sha256": requests.sha256,
        "tokenizer": None if requests.tokenizer is None else requests.tokenizer.as_metadata(),
        **({} if requests.columns is None else {"source_columns": schema_text(requests.columns)}),
    }


def _chances(prediction: Prediction) -> dict[str, Any]:
    """How sure the makespan is, where that was worked out."""
    if prediction.outlook is None:
        return {}
    return {"makespan_quantiles_s": prediction.outlook.as_metadata()}


def _repeats(prepared: Prepared) -> dict[str, Any]:
    """Identical requests that do not run, and tokens that are not computed for them."""
    requests, sequences = prepared.requests, prepared.sequences
    copies = requests.copies
    if copies is None or not copies.any():
        return {}
    outputs: NDArray[np.float64] = prepared.lengths.mean.astype(np.float64)
    if sequences.request is not None:
        outputs = np.bincount(sequences.request, weights=outputs, minlength=len(requests)).astype(
            np.float64
        )
    saved = {
        "requests": int(copies.sum()),
        "prompt_tokens": int(copies @ requests.prompt_tokens),
        "output_tokens": float(copies @ outputs),
    }
    return {"repeats": saved}


def _layers(known: PolicyInput) -> dict[str, Any]:
    """How far back attention looks, and what of the KV cache a request holds, where layers differ.

    Nothing where every layer looks at every token and keeps it.
    """
    said: dict[str, Any] = {}
    if not sees_all(known.reach):
        said["reach"] = reach_as_metadata(known.reach)
    if known.holding != GROWS_BY_ONE:
        said["holding"] = known.holding.as_metadata()
    return said


def engine_metadata(target: Machine, sizes: StepSizes) -> dict[str, Any]:
    """The engine to run a plan on: its limits, how many steps have which size, and CUDA graphs."""
    return {
        **target.limits.as_metadata(),
        "max_model_len": target.max_model_len,
        "kv_dtype": target.kv_dtype,
        **_memory(target),
        **_kv_layout(target),
        "enable_prefix_caching": True,
        **sizes.as_metadata(),
        "graph_sizes": {
            engine: graphs.chosen(sizes, target.limits, target.gpu, target.tp).as_metadata()
            for engine, graphs in ENGINE_GRAPHS.items()
        },
    }


def _memory(target: Machine) -> dict[str, float]:
    """The share of the memory that the KV cache follows from, where it was not given itself."""
    share = target.gpu_memory_utilization
    return {} if share is None else {"gpu_memory_utilization": share}


def _kv_layout(target: Machine) -> dict[str, Any]:
    """The layout of the KV cache, where it is not that of one group that keeps all tokens."""
    if target.layout.plain:
        return {}
    return {
        "kv_layout": target.layout.as_metadata(),
        "asked_block_size": target.asked_block_size,
    }


def _numbers(steps: NDArray[np.int64]) -> dict[int, int]:
    """Numbers of steps by their tokens, those that are not 0."""
    return {int(size): int(steps[size]) for size in np.flatnonzero(steps)}


def _json_number(value: float) -> float | str:
    return value if np.isfinite(value) else "inf"
