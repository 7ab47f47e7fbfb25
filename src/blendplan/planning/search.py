"""`best_options`: which settings of `blend` suit a request set, found by simulating them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.hardware.engine_settings import EngineSettings
from blendplan.planning.prepare import Prepared
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.known import MOST_SPREAD
from blendplan.policy.registry import make_policy
from blendplan.simulator.simulate import simulate_run

# By effort. Plain orders come along so that `blend` is never worse than they are.
_FEW = [
    BlendOptions(),
    BlendOptions(stagger=0.0),
    BlendOptions(boundary=1.0),
    BlendOptions(order="dfs"),
    BlendOptions(order="random"),
]
_MORE = [
    BlendOptions(stagger=0.5),
    BlendOptions(boundary=0.3),
    BlendOptions(boundary=6.0),
    BlendOptions(boundary=6.0, stagger=0.0),
    BlendOptions(reserve=1.1),
    BlendOptions(reserve=3.0),
    BlendOptions(caution=0.0),
    BlendOptions(families=False),
    BlendOptions(memory_cap=0.94),
]
# By how much a plain order must be faster to be taken where output lengths are uncertain.
PLAIN_MARGIN = 1.05
CANDIDATES = {
    0: _FEW[:1],
    1: _FEW,
    2: _FEW + _MORE,
}


def best_options(
    prepared: Prepared, target: Machine, *, effort: int = 1, seed: int = 0
) -> BlendOptions:
    """The settings with the shortest simulated run.

    Output lengths come as predicted where they are known, and elsewhere as drawn at random from
    their predictions: what suits a run in which every prediction is right may be fragile. Effort 0
    takes the defaults and simulates nothing. Effort 1 compares them with an unstaggered start,
    another boundary between the sides and the plain orders, effort 2 with other settings too. The
    first of equals wins, so the answer is the same on every machine. A plain order cannot correct
    itself when lengths turn out otherwise: where they are uncertain it must win by a margin.
    """
    candidates = CANDIDATES[min(effort, max(CANDIDATES))]
    if len(candidates) == 1:
        return candidates[0]
    outputs = plausible_outputs(prepared, target.settings, seed)
    workload = replace(prepared.workload, output_tokens=outputs)
    uncertain = bool((prepared.expected.output_spread > 0).any())
    makespans = []
    for options in candidates:
        policy = make_policy(
            "blend", prepared.expected, target.settings, seed=seed, options=options
        )
        run = simulate_run(workload, policy, target.settings, target.table)
        margin = PLAIN_MARGIN if uncertain and options.order != "blend" else 1.0
        makespans.append(margin * run.makespan_s)
    return candidates[int(np.argmin(makespans))]


def plausible_outputs(
    prepared: Prepared, settings: EngineSettings, seed: int = 0
) -> NDArray[np.int32]:
    """Output lengths as they may well turn out: known ones, and draws of log-normal ones; [n].

    No draw exceeds the request's ``max_tokens`` or what the KV cache has room for.
    """
    expected = prepared.expected
    mean, spread = expected.output_tokens, np.minimum(expected.output_spread, MOST_SPREAD)
    draws = np.random.default_rng(seed).standard_normal(len(expected))
    lengths = np.rint(mean * np.exp(spread * draws - spread**2 / 2))
    caps = prepared.requests.max_tokens.astype(np.float64)
    room = settings.kv_tokens - expected.prompt_tokens + 1
    most = np.minimum(np.where(caps < 0, np.inf, caps), room)
    # A prediction above its cap would not be one: known lengths stay as they are.
    lengths = np.where(spread > 0, np.minimum(lengths, most), np.rint(mean))
    return np.maximum(1, lengths).astype(np.int32)
