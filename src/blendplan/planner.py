"""`plan`: the main path, from requests to a plan."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.cost import Bound, GpuSpec, LeastPrefill, ModelSpec, least_prefill, makespan_bound
from blendplan.errors import BlendplanError
from blendplan.lengths import Lengths, predict_lengths
from blendplan.machine import Machine, machine
from blendplan.planfile import Plan, assemble_plan
from blendplan.requests import Requests
from blendplan.schedule import PolicyInput, make_policy, output_spread, step_prices
from blendplan.schedule.policies import check_policy_name
from blendplan.simulate import SimulatedRun, Workload, simulate_run
from blendplan.tree import (
    PrefixTree,
    annotate,
    block_chains,
    build_tree,
    divided_prompt_tokens,
    optimal_sharing,
    sharing_families,
    split_tree,
)

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, and how much of it is done of how much."""


@dataclass(frozen=True)
class Prepared:
    """Everything about a request set that does not depend on the policy.

    Attributes:
        requests: the requests, n of them.
        tree: their prefix tree.
        lengths: predicted output lengths.
        expected: what is known of each request when a policy is made.
        prefill: prefill work that no schedule avoids.
        sharing: the best possible prefix sharing ratio.
        workload: what the simulated engine sees, with the predicted output lengths.
    """

    requests: Requests
    tree: PrefixTree
    lengths: Lengths
    expected: PolicyInput
    prefill: LeastPrefill
    sharing: float
    workload: Workload


def plan(
    requests: Requests,
    *,
    gpu: str | Path | GpuSpec,
    model: str | Path | ModelSpec = "llama-3.1-8b",
    policy: str = "blend",
    lengths: str = "auto",
    preserve_sharing: float = 0.99,
    seed: int = 0,
    progress: Progress | None = None,
    **engine: Any,
) -> Plan:
    """Plan a request set: in which order, and into which share of memory, each request goes.

    Args:
        requests: from `read_requests`.
        gpu, model, engine: see `machine`.
        policy: name of the policy.
        lengths: how output lengths are predicted; see `predict_lengths`.
        preserve_sharing: share of the optimal prefix sharing that sorting may not give up.
        seed: for the policies and predictors that draw random numbers.
        progress: called as stages advance.

    Raises:
        BlendplanError: impossible wishes: unknown names, no requests, a model or a request that
            does not fit.
    """
    check_policy_name(policy)
    target = machine(gpu, model, **engine)
    prepared = prepare(
        requests, target, lengths=lengths, preserve_sharing=preserve_sharing, progress=progress
    )
    run, bound = run_policy(prepared, target, policy, seed=seed, progress=progress)
    return assemble_plan(
        requests,
        run,
        lengths=prepared.lengths,
        expected=prepared.expected,
        settings=target.settings,
        metadata=describe(prepared, target, policy, run, bound, seed=seed),
    )


def prepare(
    requests: Requests,
    target: Machine,
    *,
    lengths: str = "auto",
    preserve_sharing: float = 0.99,
    progress: Progress | None = None,
) -> Prepared:
    """The stages before any policy: tree, output lengths, resource demand, sorted and split tree.

    Args: as of `plan`.
    """
    report = progress or (lambda stage, done, total: None)
    n = len(requests)
    if n == 0:
        source = requests.source or "the request set"
        raise BlendplanError(f"{source} holds no requests; give at least one to plan")
    report("prefix tree", 0, n)
    tree = build_tree(requests)
    report("output lengths", 0, n)
    predicted = predict_lengths(requests, tree, lengths)
    report("sorting by density", 0, n)
    prompt_tokens = requests.prompt_tokens
    compute_s, memory_s = target.costs.demand(prompt_tokens, predicted.mean)
    outputs = _float(predicted.mean)
    arranged = split_tree(
        tree,
        prompt_tokens,
        compute_s,
        memory_s,
        preserve=preserve_sharing,
        output_tokens=outputs,
    )
    root = annotate(tree, prompt_tokens, compute_s, memory_s, output_tokens=outputs)
    new_prompt_tokens = divided_prompt_tokens(arranged)
    shared_compute_s, _ = target.costs.demand(new_prompt_tokens, predicted.mean)
    expected = PolicyInput(
        depth_first=tree.order,
        family=sharing_families(tree),
        by_density=arranged.order,
        prompt_tokens=_float(prompt_tokens),
        new_prompt_tokens=new_prompt_tokens,
        output_tokens=outputs,
        output_spread=output_spread(predicted.mean, predicted.p90),
        density=shared_compute_s / memory_s,
        root_density=float(root.density[0]),
        prices=step_prices(target.table),
    )
    workload = Workload(
        prompt_tokens,
        np.maximum(1, np.rint(predicted.mean)).astype(np.int32),
        block_chains(tree, requests, target.settings.block_size),
    )
    return Prepared(
        requests, tree, predicted, expected, least_prefill(tree), optimal_sharing(tree), workload
    )


def run_policy(
    prepared: Prepared,
    target: Machine,
    policy: str,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[SimulatedRun, Bound]:
    """Simulate one policy, and bound the makespan of any."""
    workload = prepared.workload
    advance = None
    if progress is not None:
        report = progress

        def advance(done: int, total: int) -> None:
            report(f"simulating {policy}", done, total)

    chosen = make_policy(policy, prepared.expected, target.settings, seed=seed)
    run = simulate_run(workload, chosen, target.settings, target.table, progress=advance)
    bound = makespan_bound(
        target.table,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        prefill=prepared.prefill,
        kv_capacity_tokens=target.settings.kv_tokens,
        preemptions=run.preemptions,
    )
    return run, bound


def describe(
    prepared: Prepared,
    target: Machine,
    policy: str,
    run: SimulatedRun,
    bound: Bound,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything a plan says of itself besides its rows; JSON values only, and deterministic."""
    chosen = make_policy(policy, prepared.expected, target.settings, seed=seed)
    settings = target.settings
    requests = prepared.requests
    batches = np.flatnonzero(run.decode_batches)
    return {
        "requests": len(requests),
        "policy": policy,
        "policy_parameters": chosen.parameters,
        "step_prices": prepared.expected.prices._asdict(),
        "gpu": target.gpu.name,
        "model": target.model.name,
        "tp": target.tp,
        "overlap": _json_number(target.table.overlap),
        "cost_model": {"name": target.costs.name, "parameters": target.costs.parameters()},
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


def _float(values: NDArray[np.float32] | NDArray[np.int32]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def _json_number(value: float) -> float | str:
    return value if np.isfinite(value) else "inf"
