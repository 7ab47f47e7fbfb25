"""`run_policy`: what a policy comes to, by simulation."""

from dataclasses import dataclass

from blendplan.cost.machine import Machine
from blendplan.planning.bound import Bound, makespan_bound
from blendplan.planning.prepare import Prepared, Progress
from blendplan.planning.search import best_parameters
from blendplan.policy.make import make_policy
from blendplan.policy.registry import POLICIES
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
    """

    run: SimulatedRun
    bound: Bound
    parameters: Parameters
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
        effort: how many of its candidates are tried; see `best_parameters`.
        progress: called as the simulation advances.
    """
    workload = prepared.workload
    report = progress or (lambda stage, done, total: None)
    parameters, run = best_parameters(
        prepared,
        target,
        POLICIES.get(policy),
        effort=effort,
        seed=seed,
        advance=lambda done, total: report(f"choosing settings of {policy}", done, total),
    )
    chosen = make_policy(policy, prepared.expected, target.limits, seed=seed, parameters=parameters)
    if run is None:
        run = simulate_run(
            workload,
            chosen,
            target.limits,
            target.table,
            progress=lambda done, total: report(f"simulating {policy}", done, total),
        )
    bound = makespan_bound(
        target.table,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        prefill=prepared.prefill,
        kv_capacity_tokens=target.limits.kv_tokens,
        preemptions=run.preemptions,
    )
    return Prediction(run, bound, chosen.parameters)
