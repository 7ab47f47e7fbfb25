"""`run_policy`: what a policy comes to, by simulation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from blendplan.cost.machine import Machine
from blendplan.planning.bound import Bound, makespan_bound
from blendplan.planning.prepare import Prepared, Progress
from blendplan.planning.search import best_parameters
from blendplan.policy.make import make_policy
from blendplan.policy.registry import POLICIES
from blendplan.policy.reviser import Reviser, Unsure, steps_between_looks
from blendplan.policy.state_machine import Parameters
from blendplan.simulator.simulate import SimulatedRun, simulate_run


@dataclass(frozen=True)
class Prediction:
    """What a policy comes to on n requests.

    Attributes:
        run: the simulated run; of several replicas, all of them side by side.
        bound: lower bound on the makespan of any schedule, on as many replicas.
        parameters: what the policy was made with.
        replicas: engines that share the requests.
        replan: after how many steps the run's progress is looked at, and what was learned when;
            JSON values. None where nothing is learned while it runs.
    """

    run: SimulatedRun
    bound: Bound
    parameters: Parameters
    replicas: int = 1
    replan: dict[str, Any] | None = None


def run_policy(
    prepared: Prepared,
    target: Machine,
    policy: str,
    *,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    progress: Progress | None = None,
    parameters: Parameters | None = None,
) -> Prediction:
    """Simulate one policy, and bound the makespan of any.

    Args:
        prepared: the requests.
        target: the machine.
        policy: name of the policy.
        seed: for policies that draw random numbers.
        effort: how many of its candidates are tried; see `best_parameters`.
        replan: whether unsure output lengths are learned while it runs.
        progress: called as the simulation advances.
        parameters: what to make the policy with, where that has been found out already.
    """
    workload = prepared.workload
    report = progress or (lambda stage, done, total: None)
    run = None
    if parameters is None:
        parameters, run = best_parameters(
            prepared,
            target,
            POLICIES.get(policy),
            effort=effort,
            seed=seed,
            advance=lambda done, total: report(f"choosing settings of {policy}", done, total),
        )
    chosen = make_policy(policy, prepared.expected, target.limits, seed=seed, parameters=parameters)
    reviser, every_steps = None, 1
    if replan and chosen.revise is not None and prepared.expected.unsure.any():
        reviser = _reviser(prepared, target)
        every_steps = steps_between_looks(_least_steps(prepared, target))
    if run is None or reviser is not None:
        run = simulate_run(
            workload,
            chosen,
            target.limits,
            target.table,
            layout=target.layout,
            progress=lambda done, total: report(f"simulating {policy}", done, total),
            revise=reviser,
            revise_every=every_steps,
        )
    bound = makespan_bound(
        target.table,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        prefill=prepared.prefill,
        kv_capacity_tokens=target.limits.kv_tokens,
        holding=prepared.expected.holding,
        preemptions=run.preemptions,
    )
    told = None if reviser is None else {"every_steps": every_steps} | reviser.as_dict()
    return Prediction(run, bound, chosen.parameters, replan=told)


def _reviser(prepared: Prepared, target: Machine) -> Reviser:
    unsure = Unsure(
        lambda: prepared.features,
        prepared.lengths,
        prepared.sequences.spread(prepared.requests.max_tokens),
    )
    return Reviser(prepared.expected, unsure, target.limits)


def _least_steps(prepared: Prepared, target: Machine) -> int:
    """Fewest steps that the run can take if every length is as expected."""
    outputs = np.maximum(1, np.rint(prepared.expected.output_tokens))
    bound = makespan_bound(
        target.table,
        prompt_tokens=prepared.workload.prompt_tokens,
        output_tokens=outputs,
        prefill=prepared.prefill,
        kv_capacity_tokens=target.limits.kv_tokens,
        holding=prepared.expected.holding,
    )
    return bound.steps
