"""`plan_replicas`: a request set on several engines, each with a plan of its own (paper 5.5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planfile.plan import Plan
from blendplan.planning.demand import shared_demand
from blendplan.planning.describe import describe
from blendplan.planning.division import assign_replicas
from blendplan.planning.outlook import together
from blendplan.planning.part import take_part
from blendplan.planning.planned import plan_prepared
from blendplan.planning.prepare import Prepared, Progress
from blendplan.planning.run_policy import Prediction, run_policy
from blendplan.planning.schedule_bound import schedule_bound
from blendplan.planning.tail import Tail
from blendplan.simulator.simulate import SimulatedRun


def plan_replicas(
    prepared: Prepared,
    target: Machine,
    policy: str,
    replicas: int,
    *,
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    tail: Tail | None = None,
    progress: Progress | None = None,
) -> tuple[Plan, Prediction]:
    """One plan for several replicas: the rows of the first, then those of the second, ...

    Args:
        prepared: all requests.
        target: the machine of each replica.
        policy: name of the policy.
        replicas: how many engines share the requests.
        preserve_sharing, seed, effort, replan, tail, progress: as of `plan`.

    Returns:
        The plan, and what it comes to.

    Raises:
        BlendplanError: fewer than one replica.
    """
    tables, parts, found = [], [], []
    for number, rows in enumerate(divide(prepared, target, replicas)):
        part = take_part(prepared, target, rows, preserve_sharing=preserve_sharing)
        plan, predicted = plan_prepared(
            part,
            target,
            policy,
            seed=seed,
            effort=effort,
            replan=replan,
            tail=tail,
            progress=progress,
            replica=number,
        )
        tables.append(plan.table)
        found.append((prepared.sequences.of(rows), predicted))
        # The time line of the slowest replica is kept, in the metadata of the whole.
        parts.append({name: value for name, value in plan.metadata.items() if name != "series"})
    joined = join_runs(prepared, target, found, replicas)
    whole = describe(prepared, target, policy, joined)
    return Plan(pa.concat_tables(tables), whole | {"parts": parts}), joined


def run_replicas(
    prepared: Prepared,
    target: Machine,
    policy: str,
    replicas: int,
    *,
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    tail: Tail | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """What the plan of one engine, or of several replicas, comes to, without its rows.

    Args: as of `plan_replicas`, for one replica too.
    """
    how: dict[str, Any] = {
        "seed": seed,
        "effort": effort,
        "replan": replan,
        "tail": tail,
        "progress": progress,
    }
    if replicas == 1:
        return run_policy(prepared, target, policy, **how)
    found = []
    for rows in divide(prepared, target, replicas):
        part = take_part(prepared, target, rows, preserve_sharing=preserve_sharing)
        predicted = run_policy(part, target, policy, **how)
        found.append((prepared.sequences.of(rows), predicted))
    return join_runs(prepared, target, found, replicas)


def divide(prepared: Prepared, target: Machine, replicas: int) -> list[NDArray[np.int64]]:
    """Rows of each replica that has any, ascending.

    Raises:
        BlendplanError: fewer than one replica.
    """
    compute_s, memory_s = shared_demand(
        target,
        prepared.tree,
        prepared.sequences,
        prepared.workload.prompt_tokens,
        prepared.expected.output_tokens,
    )
    replica = assign_replicas(prepared.request_tree, compute_s, memory_s, replicas)
    found = [np.flatnonzero(replica == number) for number in range(replicas)]
    return [rows for rows in found if len(rows)]


def join_runs(
    prepared: Prepared,
    target: Machine,
    predictions: Sequence[tuple[NDArray[np.int64], Prediction]],
    replicas: int,
) -> Prediction:
    """The runs of all replicas as one: they start together, and the slowest ends it.

    Args:
        prepared: all requests.
        target: the machine of each replica.
        predictions: sequences of each replica, and what becomes of them.
        replicas: how many there are, those without requests included.
    """
    runs = [(rows, predicted.run) for rows, predicted in predictions]
    slowest = max((run for _, run in runs), key=lambda run: run.makespan_s)
    order = np.argsort(np.concatenate([rows for rows, _ in runs]))

    def column(name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.concatenate([getattr(run, name) for _, run in runs])[order]
        return values

    whole = SimulatedRun(
        admission=np.concatenate([rows[run.admission] for rows, run in runs]),
        admission_step=column("admission_step").astype(np.int64),
        start_s=column("start_s"),
        finish_s=column("finish_s"),
        cached_tokens=column("cached_tokens").astype(np.int32),
        side=column("side").astype(np.int8),
        share_tokens=column("share_tokens").astype(np.int64),
        prefill_budget=column("prefill_budget").astype(np.int32),
        makespan_s=slowest.makespan_s,
        compute_s=sum(run.compute_s for _, run in runs),
        memory_s=sum(run.memory_s for _, run in runs),
        steps=slowest.steps,
        preemptions=sum(run.preemptions for _, run in runs),
        prefill_tokens=sum(run.prefill_tokens for _, run in runs),
        prompt_tokens=sum(run.prompt_tokens for _, run in runs),
        output_tokens=sum(run.output_tokens for _, run in runs),
        mixed_steps=np.sum([run.mixed_steps for _, run in runs], axis=0),
        decode_steps=np.sum([run.decode_steps for _, run in runs], axis=0),
        series=slowest.series,
    )
    bound = schedule_bound(
        prepared,
        target,
        prepared.workload.output_tokens,
        preemptions=whole.preemptions,
        replicas=replicas,
    )
    # Each part keeps the parameters of its own policy.
    outlooks = [predicted.outlook for _, predicted in predictions if predicted.outlook is not None]
    return Prediction(whole, bound, {}, replicas, outlook=together(outlooks) if outlooks else None)
