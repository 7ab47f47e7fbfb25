"""`plan_replicas`: a request set on several engines, each with a plan of its own (paper 5.5)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planfile.plan import Plan
from blendplan.planning.bound import Bound, bound_of_replicas, least_work
from blendplan.planning.demand import shared_demand
from blendplan.planning.describe import describe
from blendplan.planning.division import assign_replicas
from blendplan.planning.part import take_part
from blendplan.planning.planned import plan_prepared
from blendplan.planning.prepare import Prepared, Progress
from blendplan.planning.run_policy import Prediction
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
    progress: Progress | None = None,
) -> Plan:
    """One plan for several replicas: the rows of the first, then those of the second, ...

    Args:
        prepared: all requests.
        target: the machine of each replica.
        policy: name of the policy.
        replicas: how many engines share the requests.
        preserve_sharing, seed, effort, replan, progress: as of `plan`.

    Raises:
        BlendplanError: fewer than one replica.
    """
    tables, parts, runs = [], [], []
    for number, rows in enumerate(divide(prepared, target, replicas)):
        part = take_part(prepared, target, rows, preserve_sharing=preserve_sharing)
        plan, run = plan_prepared(
            part,
            target,
            policy,
            seed=seed,
            effort=effort,
            replan=replan,
            progress=progress,
            replica=number,
        )
        tables.append(plan.table)
        runs.append((prepared.sequences.of(rows), run))
        # The time line of the slowest replica is kept, in the metadata of the whole.
        parts.append({name: value for name, value in plan.metadata.items() if name != "series"})
    joined = join_runs(prepared, target, runs, replicas)
    whole = describe(prepared, target, policy, joined)
    return Plan(pa.concat_tables(tables), whole | {"parts": parts})


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
    runs: Sequence[tuple[NDArray[np.int64], SimulatedRun]],
    replicas: int,
) -> Prediction:
    """The runs of all replicas as one: they start together, and the slowest ends it.

    Args:
        prepared: all requests.
        target: the machine of each replica.
        runs: sequences and run of each replica.
        replicas: how many there are, those without requests included.
    """
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
    bound = _bound(prepared, target, whole.preemptions, replicas)
    # Each part keeps the parameters of its own policy.
    return Prediction(whole, bound, {}, replicas)


def _bound(prepared: Prepared, target: Machine, preemptions: int, replicas: int) -> Bound:
    workload = prepared.workload
    prompts = workload.prompt_tokens.astype(np.int64)
    outputs = workload.output_tokens.astype(np.int64)
    work = least_work(
        prompts,
        outputs,
        prepared.prefill,
        preemptions,
        reach=target.table.reach,
        holding=prepared.expected.holding,
    )
    longest_prompt = int(prompts[np.argmax(outputs)])
    kv_tokens = target.limits.kv_tokens
    return bound_of_replicas(
        target.table, work, longest_prompt, kv_tokens, replicas, prepared.expected.holding
    )
