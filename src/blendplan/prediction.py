"""`run_policy`: what a policy comes to, by simulation; and all that a plan says of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from blendplan.cost import Bound, makespan_bound, model_names
from blendplan.cost.profile import catalogued, profile_text
from blendplan.machine import Machine
from blendplan.preparation import Prepared, Progress
from blendplan.schedule import make_policy
from blendplan.search import best_options
from blendplan.simulator import SimulatedRun, simulate_run


@dataclass(frozen=True)
class Prediction:
    """What a policy comes to on n requests.

    Attributes:
        run: the simulated run; of several replicas, all of them side by side.
        bound: lower bound on the makespan of any schedule, on as many replicas.
        parameters: what the policy was made with.
        replicas: engines that share the requests.
    """

    run: SimulatedRun
    bound: Bound
    parameters: Mapping[str, float | int | str]
    replicas: int = 1


def run_policy(
    prepared: Prepared,
    target: Machine,
    policy: str,
    *,
    seed: int = 0,
    effort: int = 1,
    progress: Progress | None = None,
) -> Prediction:
    """Simulate one policy, and bound the makespan of any.

    Args:
        prepared: the requests.
        target: the machine.
        policy: name of the policy.
        seed: for policies that draw random numbers.
        effort: how many settings of ``blend`` are tried; see `best_options`.
        progress: called as the simulation advances.
    """
    workload = prepared.workload
    advance = None
    if progress is not None:
        report = progress

        def advance(done: int, total: int) -> None:
            report(f"simulating {policy}", done, total)

    options = None
    if policy == "blend":
        options = best_options(prepared, target, effort=effort, seed=seed)
    chosen = make_policy(policy, prepared.expected, target.settings, seed=seed, options=options)
    run = simulate_run(workload, chosen, target.settings, target.table, progress=advance)
    bound = makespan_bound(
        target.table,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        prefill=prepared.prefill,
        kv_capacity_tokens=target.settings.kv_tokens,
        preemptions=run.preemptions,
    )
    return Prediction(run, bound, chosen.parameters)


def describe(
    prepared: Prepared,
    target: Machine,
    policy: str,
    prediction: Prediction,
) -> dict[str, Any]:
    """Everything a plan says of itself besides its rows; JSON values only, and deterministic."""
    run, bound = prediction.run, prediction.bound
    settings = target.settings
    requests = prepared.requests
    batches = np.flatnonzero(run.decode_batches)
    return {
        "requests": len(requests),
        "replicas": prediction.replicas,
        "policy": policy,
        "policy_parameters": dict(prediction.parameters),
        "step_prices": prepared.expected.prices._asdict(),
        "gpu": target.gpu.name,
        "gpu_profile": None if catalogued(target.gpu) else profile_text(target.gpu),
        "model": target.model.name,
        "model_shape": None if target.model.name in model_names() else asdict(target.model),
        "tp": target.tp,
        "overlap": _json_number(target.table.overlap),
        "cost_model": {
            "name": target.costs.name,
            "parameters": target.costs.parameters(),
            "note": target.costs.note,
        },
        "engine": {
            "kv_tokens": settings.kv_tokens,
            "max_num_seqs": settings.max_num_seqs,
            "max_num_batched_tokens": settings.max_num_batched_tokens,
            "block_size": settings.block_size,
            "kv_dtype": target.kv_dtype,
            "enable_prefix_caching": True,
            "decode_batch_steps": {str(size): int(run.decode_batches[size]) for size in batches},
        },
        "density": prepared.expected.root_density,
        "prefix_sharing": {"planned": run.prefix_sharing, "optimal": prepared.sharing},
        "lengths": {
            "note": prepared.lengths.note,
            "estimated_prompts": requests.estimated_tokens,
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
        },
        "bound_s": bound.makespan_s,
        "bound_ratio": bound.makespan_s / run.makespan_s if run.makespan_s > 0 else 1.0,
        "series": {name: [float(v) for v in values] for name, values in run.series.items()},
        "request_file_sha256": requests.sha256,
    }


def _json_number(value: float) -> float | str:
    return value if np.isfinite(value) else "inf"
