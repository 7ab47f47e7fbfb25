"""`draw_figures`: the numbers behind the pictures of a comparison, as plain columns.

`blendplan.report.charts` draws them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.planning.compare import Comparison, Outcome
from blendplan.planning.verdict import Verdict
from blendplan.policy.holding import Holding
from blendplan.report.figures_map import DensityMap, density_map
from blendplan.report.figures_tree import TreeBlock, tree_blocks
from blendplan.report.kv_over_time import KvOverTime, kv_over_time
from blendplan.tree.annotate import annotate


@dataclass(frozen=True)
class PolicyFigure:
    """One policy of a comparison.

    Attributes:
        name: of the policy.
        makespan_s, throughput_tokens_per_s, steps, preemptions, plan_wall_s: its results.
        bound_ratio: lower bound over makespan.
        prefix_sharing: share of the prompt tokens that came from the prefix cache.
        end_s: end of each point of the series, in seconds from the start; float64 [k].
        compute_s, memory_s: mean compute and memory time of the steps of a point; float64 [k].
        kv: who holds the KV cache.
    """

    name: str
    makespan_s: float
    throughput_tokens_per_s: float
    steps: int
    preemptions: int
    plan_wall_s: float
    bound_ratio: float
    prefix_sharing: float
    end_s: NDArray[np.float64]
    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]
    kv: KvOverTime


@dataclass(frozen=True)
class Figures:
    """A comparison, ready to be drawn.

    Attributes:
        title: of the report, such as the name of the request file.
        requests, prompt_tokens, output_tokens: what there is to do.
        model, gpu, tp, overlap, cost_model: what for.
        density, optimal_sharing, kv_tokens, bound_s: of the workload and the machine.
        kv_unit: what ``kv_tokens`` are: ``tokens``, or ``slots`` where layers keep different ones.
        policies: in the order in which they were asked for.
        map: the requests by their lengths.
        tree: the top of the prefix tree, outermost first.
        verdict: what it all comes to.
        notes: what the reader should know of the input.
    """

    title: str
    requests: int
    prompt_tokens: int
    output_tokens: int
    model: str
    gpu: str
    tp: int
    overlap: float
    cost_model: str
    density: float
    optimal_sharing: float
    kv_tokens: int
    kv_unit: str
    bound_s: float
    policies: tuple[PolicyFigure, ...]
    map: DensityMap
    tree: tuple[TreeBlock, ...]
    verdict: Verdict
    notes: tuple[str, ...] = ()


def draw_figures(
    result: Comparison, title: str = "Comparison", notes: tuple[str, ...] = ()
) -> Figures:
    """Collect what the pictures of a comparison show.

    Args:
        result: at least one policy.
        title: heading of the report.
        notes: lines about the input, printed under the pictures.
    """
    prepared, target = result.prepared, result.target
    prompts, outputs = prepared.workload.prompt_tokens, prepared.workload.output_tokens
    compute_s, memory_s = target.costs.demand(prompts, outputs)
    totals = annotate(
        prepared.tree, prompts, compute_s, memory_s, output_tokens=outputs.astype(np.float64)
    )
    bound_s = min(outcome.bound.makespan_s for outcome in result.outcomes.values())
    policies = tuple(
        _policy(name, outcome, prompts, outputs, target.limits.kv_tokens, prepared.expected.holding)
        for name, outcome in result.outcomes.items()
    )
    return Figures(
        title=title,
        requests=len(prepared.requests),
        prompt_tokens=int(prompts.sum(dtype=np.int64)),
        output_tokens=int(outputs.sum(dtype=np.int64)),
        model=target.model.name,
        gpu=target.gpu.name,
        tp=target.tp,
        overlap=float(target.table.overlap),
        cost_model=target.costs.name,
        density=float(totals.density[0]),
        optimal_sharing=prepared.sharing,
        kv_tokens=target.limits.kv_tokens,
        kv_unit="tokens" if target.layout.plain else "slots",
        bound_s=bound_s,
        policies=policies,
        map=density_map(prompts, outputs, compute_s, memory_s),
        tree=tree_blocks(prepared.tree, totals),
        verdict=result.verdict,
        notes=notes,
    )


def _policy(
    name: str,
    outcome: Outcome,
    prompts: NDArray[np.int32],
    outputs: NDArray[np.int32],
    kv_tokens: int,
    holding: Holding,
) -> PolicyFigure:
    run = outcome.run
    return PolicyFigure(
        name=name,
        makespan_s=run.makespan_s,
        throughput_tokens_per_s=run.throughput_tokens_per_s,
        steps=run.steps,
        preemptions=run.preemptions,
        plan_wall_s=outcome.plan_wall_s,
        bound_ratio=outcome.bound.makespan_s / run.makespan_s if run.makespan_s > 0 else 1.0,
        prefix_sharing=run.prefix_sharing,
        end_s=run.series["end_s"],
        compute_s=run.series["compute_s"],
        memory_s=run.series["memory_s"],
        kv=kv_over_time(run, prompts, outputs, kv_tokens, holding),
    )
