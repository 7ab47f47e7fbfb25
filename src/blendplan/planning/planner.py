"""`plan`: the main path, from requests to a plan."""

from pathlib import Path
from typing import Any

from blendplan.checks.arguments import text
from blendplan.cost.machine import check_engine_arguments, machine
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.planfile.plan import Plan
from blendplan.planning.options import PlanOptions, check_requests
from blendplan.planning.planned import plan_prepared
from blendplan.planning.prepare import Progress, prepare
from blendplan.planning.replicas import plan_replicas
from blendplan.planning.tail import Tail
from blendplan.planning.window import Window, plan_window
from blendplan.policy.registry import POLICIES
from blendplan.requests.columns import Requests


def plan(
    requests: Requests,
    *,
    gpu: str | Path | GpuSpec,
    model: str | Path | ModelSpec = "llama-3.1-8b",
    policy: str = "blend",
    replicas: int = 1,
    lengths: str = "auto",
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    tail: float | None = None,
    soonest: str = "p95",
    within_s: float | None = None,
    chance: float = 0.9,
    first: str = "work",
    progress: Progress | None = None,
    **engine: Any,
) -> Plan:
    """Plan a request set: in which order, and into which share of memory, each request goes.

    Args:
        requests: from `read_requests`.
        gpu, model, engine: see `machine`.
        policy: name of the policy.
        replicas: engines that share the requests, each with a machine of its own.
        lengths: how output lengths are predicted; see `predict_lengths`.
        preserve_sharing: share of the optimal prefix sharing that sorting may not give up.
        seed: for the policies and predictors that draw random numbers.
        effort: 0 to 2, how many of the policy's parameters are tried; see `best_parameters`.
        replan: whether the run learns output lengths that are not known from the requests that
            end, and is planned anew by them; see `Reviser`.
        tail: share by which the makespan may be longer for requests to be done sooner.
        soonest: the percentile of the turnaround that counts for that: p50, p95 or p99.
        within_s: seconds that the run may take: requests for which there is no time are left out;
            see `plan_window`.
        chance: probability with which it must end in time.
        first: which requests go first where there is no time for all, see `FIRST`.
        progress: called as stages advance.

    Raises:
        BlendplanError: impossible requirements: unknown names, numbers out of their ranges
            (`blendplan.checks.ranges.RANGES`), no requests, a model or a request that does not fit.
    """
    check_requests(requests)
    traded = None if tail is None else Tail(tail, soonest)
    options = PlanOptions(
        replicas, lengths, preserve_sharing, seed, effort, replan, progress, traded
    )
    POLICIES.check(text("policy", policy, "give the name of a policy"))
    check_engine_arguments("plan", engine)
    window = None if within_s is None else Window(within_s, chance, first)
    target = machine(gpu, model, **engine)
    prepared = prepare(
        requests,
        target,
        lengths=options.lengths,
        preserve_sharing=options.preserve_sharing,
        seed=options.seed,
        progress=progress,
    )
    if window is not None:
        part = plan_window(prepared, target, policy, window, options)
        return part.rejecting(requests.rejects)
    if options.replicas != 1:
        parts, _ = plan_replicas(
            prepared,
            target,
            policy,
            options.replicas,
            preserve_sharing=options.preserve_sharing,
            seed=options.seed,
            effort=options.effort,
            replan=options.replan,
            tail=traded,
            progress=progress,
        )
        return parts.rejecting(requests.rejects)
    made, _ = plan_prepared(
        prepared,
        target,
        policy,
        seed=options.seed,
        effort=options.effort,
        replan=options.replan,
        tail=traded,
        progress=progress,
    )
    return made.rejecting(requests.rejects)
