"""The paper's dual scanner (5.3, algorithm 3).

Two ends of the density-sorted order are read at once, the compute-heavy left one and the
memory-heavy right one, each kept inside its share of the KV cache and of the prefill tokens.
"""

import numpy as np

from blendplan.kernel import kernel
from blendplan.schedule.partition import memory_partition, prefill_budget_tokens
from blendplan.schedule.state import COMPUTE, CREDIT, HOLDERS, MEMORY, SHARE, USED, PolicyState


@kernel
def begin_step(state: PolicyState, running: int) -> int:
    """Start a step with ``running`` requests; answers how many prefill tokens it may compute."""
    if state.cursor[0] > state.cursor[1]:
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
    return max(1, int(np.ceil(budget)))


@kernel
def next_request(state: PolicyState, running: int) -> int:
    """The waiting request to try next, or -1 when none should be admitted now."""
    left = state.order[state.cursor[0]]
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
    level = state.level
    if level[CREDIT + side] <= 0.0:
        return False
    # An empty side takes a request of any size: a share smaller than one request must not starve.
    if level[HOLDERS + side] == 0.0:
        return True
    return level[USED + side] + state.resident_tokens[request] <= level[SHARE + side]


@kernel
def admitted(state: PolicyState, request: int) -> None:
    """Record that ``request`` was admitted, for the first time or again after a preemption."""
    cursor = state.cursor
    side = state.side[request]
    if cursor[0] <= cursor[1]:
        if side == COMPUTE and state.order[cursor[0]] == request:
            cursor[0] += 1
            state.level[CREDIT + COMPUTE] -= state.new_prompt_tokens[request]
        elif side == MEMORY and state.order[cursor[1]] == request:
            cursor[1] -= 1
            state.level[CREDIT + MEMORY] -= state.new_prompt_tokens[request]
    state.level[USED + side] += state.resident_tokens[request]
    state.level[HOLDERS + side] += 1


@kernel
def released(state: PolicyState, request: int) -> None:
    """Record that ``request`` gave its KV cache back: it is done, or was preempted."""
    level, side = state.level, state.side[request]
    level[HOLDERS + side] -= 1
    level[USED + side] -= state.resident_tokens[request]
    if level[HOLDERS + side] == 0.0:
        # Rounding must not be left over as use.
        level[USED + side] = 0.0
