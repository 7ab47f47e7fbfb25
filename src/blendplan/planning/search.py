"""`best_parameters`: which parameters of a policy suit a request set, found by simulation."""

from dataclasses import replace

import numpy as np

from blendplan.cost.machine import Machine
from blendplan.lengths.plausible import plausible_outputs
from blendplan.planning.prepare import Prepared
from blendplan.policy.state_machine import Parameters, PolicyKind
from blendplan.simulator.simulate import simulate_run


def best_parameters(
    prepared: Prepared, target: Machine, kind: PolicyKind, *, effort: int = 1, seed: int = 0
) -> Parameters:
    """Those of a policy's candidates that give the shortest simulated run.

    Output lengths come as predicted where they are known, and elsewhere as drawn at random from
    their predictions: what suits a run in which every prediction is right may be fragile. The first
    of equals wins, so the result is the same on every machine. A single candidate is taken without
    simulation.

    Args:
        prepared: the requests.
        target: the machine.
        kind: the policy.
        effort: 0 to 2, how many candidates it may offer.
        seed: of the draws, and for policies that draw random numbers.
    """
    candidates = kind.candidates(effort, bool(prepared.expected.unsure.any()))
    if len(candidates) == 1:
        return candidates[0].parameters
    # The workload's own lengths may be what really happens.
    outputs = plausible_outputs(prepared.expected.outcomes, prepared.requests.source_row, seed)
    workload = replace(prepared.workload, output_tokens=outputs)
    makespans = []
    for parameters, handicap in candidates:
        policy = kind.make(prepared.expected, target.limits, seed=seed, parameters=parameters)
        run = simulate_run(workload, policy, target.limits, target.table)
        makespans.append(handicap * run.makespan_s)
    return candidates[int(np.argmin(makespans))].parameters
