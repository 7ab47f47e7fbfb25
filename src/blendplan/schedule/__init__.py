"""Schedule: which waiting request may be admitted now.

In go columns of predicted demand in a chosen order; out comes a policy, a state machine over
arrays that whoever runs the steps asks for the next admission: the simulated engine from inside
its step loop, a live engine through `LivePolicy`. Knows nothing of either.
"""

from blendplan.schedule.blend_start import Arrangement, BlendOptions
from blendplan.schedule.demand import (
    MOST_SPREAD,
    PolicyInput,
    StepPrices,
    output_spread,
    step_prices,
)
from blendplan.schedule.live import LivePolicy
from blendplan.schedule.partition import memory_partition, prefill_budget_tokens
from blendplan.schedule.policies import POLICIES, Policy, make_policy
from blendplan.schedule.settings import EngineSettings

__all__ = [
    "MOST_SPREAD",
    "POLICIES",
    "Arrangement",
    "BlendOptions",
    "EngineSettings",
    "LivePolicy",
    "Policy",
    "PolicyInput",
    "StepPrices",
    "make_policy",
    "memory_partition",
    "output_spread",
    "prefill_budget_tokens",
    "step_prices",
]
