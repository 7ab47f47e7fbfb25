"""`best_options`: which settings of `blend` suit a request set, found by simulating them."""

from dataclasses import replace

import numpy as np

from blendplan.machine import Machine
from blendplan.preparation import Prepared
from blendplan.schedule import BlendOptions, make_policy
from blendplan.simulator import simulate_run

# By effort. Plain orders come along so that `blend` is never worse than they are.
_FEW = [
    BlendOptions(),
    BlendOptions(stagger=0.0),
    BlendOptions(order="dfs"),
    BlendOptions(order="random"),
]
_MORE = [
    BlendOptions(stagger=0.5),
    BlendOptions(boundary=0.3),
    BlendOptions(boundary=3.0),
    BlendOptions(reserve=1.1),
    BlendOptions(reserve=2.5),
    BlendOptions(memory_cap=0.94),
]
CANDIDATES = {
    0: _FEW[:1],
    1: _FEW,
    2: _FEW + _MORE,
}


def best_options(
    prepared: Prepared, target: Machine, *, effort: int = 1, seed: int = 0
) -> BlendOptions:
    """The settings with the shortest simulated run if output lengths come as predicted.

    Effort 0 takes the defaults and simulates nothing. Effort 1 compares them with an unstaggered
    start and the plain orders, effort 2 with other settings too. The first of equals wins, so the
    answer is the same on every machine.
    """
    candidates = CANDIDATES[min(effort, max(CANDIDATES))]
    if len(candidates) == 1:
        return candidates[0]
    outputs = np.maximum(1, np.rint(prepared.expected.output_tokens)).astype(np.int32)
    workload = replace(prepared.workload, output_tokens=outputs)
    makespans = []
    for options in candidates:
        policy = make_policy(
            "blend", prepared.expected, target.settings, seed=seed, options=options
        )
        run = simulate_run(workload, policy, target.settings, target.table)
        makespans.append(run.makespan_s)
    return candidates[int(np.argmin(makespans))]
