"""`best_parameters`: which parameters of a policy suit a request set, found by simulation."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planning.prepare import Prepared
from blendplan.policy.known import MOST_SPREAD
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
    candidates = kind.candidates(effort, prepared.expected.uncertain)
    if len(candidates) == 1:
        return candidates[0].parameters
    outputs = plausible_outputs(prepared, target.limits, seed)
    workload = replace(prepared.workload, output_tokens=outputs)
    makespans = []
    for parameters, handicap in candidates:
        policy = kind.make(prepared.expected, target.limits, seed=seed, parameters=parameters)
        run = simulate_run(workload, policy, target.limits, target.table)
        makespans.append(handicap * run.makespan_s)
    return candidates[int(np.argmin(makespans))].parameters


def plausible_outputs(prepared: Prepared, limits: EngineLimits, seed: int = 0) -> NDArray[np.int32]:
    """Output lengths as they may well turn out: known ones, and draws of log-normal ones; [n].

    No draw exceeds the request's ``max_tokens`` or what the KV cache has room for.
    """
    expected = prepared.expected
    mean, spread = expected.output_tokens, np.minimum(expected.output_spread, MOST_SPREAD)
    draws = np.random.default_rng(seed).standard_normal(len(expected))
    lengths = np.rint(mean * np.exp(spread * draws - spread**2 / 2))
    caps = prepared.requests.max_tokens.astype(np.float64)
    room = limits.room_for_output(expected.prompt_tokens)
    most = np.minimum(np.where(caps < 0, np.inf, caps), room)
    # A prediction above its cap would not be one: known lengths stay as they are.
    lengths = np.where(spread > 0, np.minimum(lengths, most), np.rint(mean))
    return np.maximum(1, lengths).astype(np.int32)
