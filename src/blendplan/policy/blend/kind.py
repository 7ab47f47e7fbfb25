"""`BLEND`: the policy by its name, its parameters, and which of them are tried."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.blend.revise import revise
from blendplan.policy.blend.start import BlendOptions, blend_state
from blendplan.policy.blend.steps import TRANSITIONS, upcoming
from blendplan.policy.blend.timetable import arrange
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.queue import plain_order, queue_policy
from blendplan.policy.state_machine import (
    COMPUTE,
    MEMORY,
    Candidate,
    Parameters,
    Policy,
    PolicyKind,
    sides_by_density,
)

# By how much a plain order must be faster to be taken where output lengths are uncertain: it cannot
# correct itself when they turn out otherwise. Chosen on the paper's four workloads with log-normal
# noise of sigma 0.5 and 1 (benchmarks/paper.py goals).
PLAIN_MARGIN = 1.05

_DEFAULTS = BlendOptions()
# Plain orders come along so that `blend` is never worse than they are.
_FEW = (
    _DEFAULTS,
    replace(_DEFAULTS, boundary=0.3),
    replace(_DEFAULTS, boundary=3.0),
    replace(_DEFAULTS, boundary=30.0),
    replace(_DEFAULTS, most_limit=1.0),
    replace(_DEFAULTS, boundary=3.0, most_limit=1.0),
    replace(_DEFAULTS, boundary=30.0, most_limit=1.0),
    replace(_DEFAULTS, reserve=2.0),
    replace(_DEFAULTS, order="dfs"),
    replace(_DEFAULTS, order="fcfs"),
    replace(_DEFAULTS, order="random"),
)
_MORE = (
    replace(_DEFAULTS, reserve=0.0),
    replace(_DEFAULTS, boundary=30.0, reserve=0.0),
    replace(_DEFAULTS, boundary=30.0, families=False),
    replace(_DEFAULTS, reserve=2.0, most_limit=1.0),
)
_BY_EFFORT = (_FEW[:1], _FEW, _FEW + _MORE)
# Where a step costs by more than this for having prompts, as a multiple of the shortest one, bursts
# of admissions are tried too: 1.2 was measured with vLLM on an H100, whose steps of decoding alone
# are one CUDA graph (docs/proof.md), and 0.07 is what its kernels cost by themselves.
_DEAR_PREFILL = 0.25
_BURST_STEPS = 8
_BURSTS = (
    *(
        replace(_DEFAULTS, boundary=boundary, burst_steps=steps)
        for boundary in (3.0, 30.0)
        for steps in (4, 16)
    ),
    replace(_DEFAULTS, boundary=3.0, most_limit=1.0, burst_steps=16),
    replace(_DEFAULTS, limit=2.5, burst_steps=_BURST_STEPS),
    replace(_DEFAULTS, order="dfs", burst_steps=4),
    replace(_DEFAULTS, order="dfs", burst_steps=12),
)


def _make(known: PolicyInput, limits: EngineLimits, *, seed: int, parameters: Parameters) -> Policy:
    own = {name: value for name, value in parameters.items() if name != "seed"}
    options = BlendOptions(**own)  # type: ignore[arg-type]
    plain_side = sides_by_density(known)
    if options.order != "blend":
        seed = int(parameters.get("seed", seed))
        order = plain_order(options.order, known, seed)
        return queue_policy("blend", order, limits, plain_side, asdict(options) | {"seed": seed})
    state = blend_state(known, arrange(known, limits, options), limits, options)
    side = np.where(state.memory_side, MEMORY, COMPUTE).astype(np.int8)
    return Policy("blend", TRANSITIONS, state, side, asdict(options), revise, upcoming)


def _candidates(effort: int, uncertain: bool, prices: StepPrices) -> Sequence[Candidate]:
    """Effort 0 takes the defaults; 1 compares them with other boundaries between the sides, a
    larger reserve and the plain orders; 2 with other parameters too. Where prompts make a step
    dear, they are all in bursts, but for the plain orders, and bursts of other lengths come along.
    """
    tried: Sequence[BlendOptions] = _BY_EFFORT[min(effort, len(_BY_EFFORT) - 1)]
    if prices.prefill_share > _DEAR_PREFILL:
        tried = [
            replace(one, burst_steps=_BURST_STEPS) if one.order == "blend" else one for one in tried
        ]
        tried += _BURSTS if effort > 0 else ()
    return [
        Candidate(asdict(options), PLAIN_MARGIN if uncertain and options.order != "blend" else 1.0)
        for options in tried
    ]


BLEND = PolicyKind(
    "both kinds of work over the whole run, memory as full as it pays", _make, _candidates
)
