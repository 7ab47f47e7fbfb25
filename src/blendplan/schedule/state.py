"""The policies' state machine: arrays for state, compiled functions for transitions.

Every policy is one of two kinds. A *queue* admits in a fixed order whatever the engine has room
for. *Scanners* read the density-sorted order from both ends and keep each end inside its share of
the KV cache and of the prefill tokens (paper 5.3, algorithm 3). Whoever runs the steps calls

    begin_step      once per step; answers the prefill tokens allowed in it
    next_request    which waiting request to try next, -1 for none; changes nothing that counts
    admitted        that request, or a preempted one again, was given room
    preempted       it lost its room and waits in the engine
    finished        it is done

The functions assume, and the callers guarantee, that the engine itself checks real room: the
policy only knows predictions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.schedule.partition import memory_partition, prefill_budget_tokens

QUEUE, SCANNERS = 0, 1
COMPUTE, MEMORY = 0, 1
SIDES = ("compute", "memory")

# Entries of PolicyState.level: two per quantity, compute side first.
USED, SHARE, CREDIT = 0, 2, 4


class PolicyState(NamedTuple):
    """State of one policy over n requests.

    Attributes:
        kind: QUEUE or SCANNERS.
        order: requests in the policy's order; int64 [n].
        resident_tokens: KV tokens that each request holds on average, expected; float64 [n].
        new_prompt_tokens: prompt tokens it must compute, its share of a common prefix counted;
            float64 [n].
        output_tokens: expected output length; float64 [n].
        density: compute seconds per memory second, prefix sharing counted; float64 [n].
        side: COMPUTE or MEMORY, per request; int8 [n]. Scanners overwrite it at admission.
        cursor: next position of the left and of the right end of ``order``; int64 [2].
        level: KV tokens in use, KV tokens allowed and prefill tokens in credit, each for the
            compute and the memory side; float64 [6].
        kv_tokens, root_density: capacity M and density of the whole workload.
        max_num_batched_tokens: most tokens of one step.
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


@kernel
def begin_step(state: PolicyState, running: int) -> int:
    """Start a step with ``running`` requests; answers how many prefill tokens it may compute."""
    if state.kind == QUEUE or state.cursor[0] > state.cursor[1]:
        return state.max_num_batched_tokens
    level = state.level
    left = state.order[state.cursor[0]]
    right = state.order[state.cursor[1]]
    level[SHARE], level[SHARE + 1] = memory_partition(
        state.kv_tokens, state.root_density, state.density[left], state.density[right]
    )
    budget = 0.0
    for side, request in ((COMPUTE, left), (MEMORY, right)):
        output = state.output_tokens[request]
        flow = prefill_budget_tokens(
            level[SHARE + side],
            state.resident_tokens[request] - output / 2,
            state.new_prompt_tokens[request],
            output,
        )
        budget += flow
        # A side may fall behind by at most one request, or one step's flow where that is more.
        cap = max(flow, state.new_prompt_tokens[request])
        level[CREDIT + side] = min(level[CREDIT + side] + flow, cap)
    if running == 0:
        return state.max_num_batched_tokens
    return min(state.max_num_batched_tokens, max(1, int(np.ceil(budget))))


@kernel
def next_request(state: PolicyState, running: int) -> int:
    """The waiting request to try next, or -1 when none should be admitted now."""
    if state.cursor[0] > state.cursor[1]:
        return -1
    left = state.order[state.cursor[0]]
    if state.kind == QUEUE:
        return left
    right = state.order[state.cursor[1]]
    left_fits = _side_has_room(state, COMPUTE, left)
    right_fits = _side_has_room(state, MEMORY, right)
    if left_fits and right_fits:
        # Fill both sides evenly, so that neither waits for the other at the start.
        level = state.level
        right_fits = level[USED + 1] * level[SHARE] <= level[USED] * level[SHARE + 1]
    if right_fits:
        state.side[right] = MEMORY
        return right
    if left_fits or running == 0:
        state.side[left] = COMPUTE
        return left
    return -1


@kernel
def _side_has_room(state: PolicyState, side: int, request: int) -> bool:
    used = state.level[USED + side]
    if state.level[CREDIT + side] <= 0.0:
        return False
    # An empty side takes a request of any size: a share smaller than one request must not starve.
    return used <= 0.0 or used + state.resident_tokens[request] <= state.level[SHARE + side]


@kernel
def admitted(state: PolicyState, request: int) -> None:
    """Record that ``request`` was admitted, for the first time or again after a preemption."""
    cursor = state.cursor
    side = state.side[request]
    if cursor[0] <= cursor[1]:
        first = state.order[cursor[0]] == request
        if first and (state.kind == QUEUE or side == COMPUTE):
            cursor[0] += 1
            state.level[CREDIT + COMPUTE] -= state.new_prompt_tokens[request]
        elif state.kind == SCANNERS and state.order[cursor[1]] == request:
            cursor[1] -= 1
            state.level[CREDIT + MEMORY] -= state.new_prompt_tokens[request]
    state.level[USED + side] += state.resident_tokens[request]


@kernel
def preempted(state: PolicyState, request: int) -> None:
    """Record that ``request`` lost its KV cache and waits in the engine to be admitted again."""
    state.level[USED + state.side[request]] -= state.resident_tokens[request]


@kernel
def finished(state: PolicyState, request: int) -> None:
    """Record that ``request`` is done and has freed its KV cache."""
    state.level[USED + state.side[request]] -= state.resident_tokens[request]
