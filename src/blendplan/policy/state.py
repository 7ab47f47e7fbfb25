"""`PolicyState`: what a policy knows and remembers, as arrays.

Every policy is one of three kinds: a *queue* admits in a fixed order whatever the engine has room
for, *scanners* are the paper's (`scanners.py`), *blend* is ours (`blend.py`). One type of state
serves all, so that the step loop is compiled once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.policy.blend.state import BlendState

QUEUE, SCANNERS, BLEND = range(3)
COMPUTE, MEMORY = 0, 1
SIDES = ("compute", "memory")

# Entries of PolicyState.level: two per quantity, compute side first.
USED, SHARE, CREDIT, HOLDERS = 0, 2, 4, 6


class PolicyState(NamedTuple):
    """State of one policy over n requests.

    Attributes:
        kind: QUEUE, SCANNERS or BLEND.
        order: requests in the policy's order; int64 [n].
        resident_tokens: KV tokens that each request holds on average, expected; float64 [n].
        new_prompt_tokens: prompt tokens it must compute, its share of a common prefix counted;
            float64 [n].
        output_tokens: expected output length; float64 [n].
        density: compute seconds per memory second, prefix sharing counted; float64 [n].
        side: COMPUTE or MEMORY, per request; int8 [n]. Scanners overwrite it at admission.
        cursor: next position of the left and of the right end of ``order``; int64 [2].
        level: KV tokens in use, KV tokens allowed, prefill tokens in credit and requests that hold
            KV tokens, each for the compute and the memory side; float64 [8].
        kv_tokens, root_density: capacity M and density of the whole workload.
        max_num_batched_tokens: most tokens of one step.
        blend: state of its own of the kind BLEND, empty for others.
    """

    kind: int
    order: NDArray[np.int64]
    resident_tokens: NDArray[np.float64]
    new_prompt_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    density: NDArray[np.float64]
    side: NDArray[np.int8]
    cursor: NDArray[np.int64]
    level: NDArray[np.float64]
    kv_tokens: float
    root_density: float
    max_num_batched_tokens: int
    blend: BlendState
