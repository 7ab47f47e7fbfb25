"""The paper's dual scanner (5.3, algorithm 3).

Two ends of the density-sorted order are read at once, the compute-heavy left one and the
memory-heavy right one, each kept inside its share of the KV cache and of the prefill tokens.
"""

import numpy as np

from blendplan.kernel import kernel
from blendplan.policy.state import COMPUTE, CREDIT, HOLDERS, MEMORY, SHARE, USED, PolicyState


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


@kernel
def memory_partition(
    kv_tokens: float, root_density: float, left_density: float, right_density: float
) -> tuple[float, float]:
    """KV tokens for the compute-heavy (left) and the memory-heavy (right) scanner.

    Solves M_L + M_R = M and M_L rho_L + M_R rho_R = M rho_root, so that the requests resident
    together have the density of the whole workload. Where no mix of the two has that density, the
    side that is nearer gets all of M; two equal densities share it.

    Args:
        kv_tokens: M, in any unit of memory.
        root_density: rho_root, compute seconds per memory second of the whole workload.
        left_density, right_density: the same for the two current requests, left >= right.

    Returns:
        (M_L, M_R) in the unit of ``kv_tokens``.
    """
    if left_density == right_density:
        return kv_tokens / 2, kv_tokens / 2
    share = (root_density - right_density) / (left_density - right_density)
    left = kv_tokens * min(1.0, max(0.0, share))
    return left, kv_tokens - left


@kernel
def prefill_budget_tokens(
    side_tokens: float, prompt_tokens: float, new_prompt_tokens: float, output_tokens: float
) -> float:
    """Prefill tokens per step that keep one side of the partition full.

    A side of M tokens holds N = M / (p + d/2) requests on average; one in d of them finishes per
    step and is replaced, so C = N p / d (5.3). Only tokens that miss the prefix cache are
    computed, so the p of the flow is the new prompt tokens.

    Args:
        side_tokens: M of this side in KV tokens.
        prompt_tokens: KV tokens that a request of this side holds for its prompt.
        new_prompt_tokens: prompt tokens that it must compute.
        output_tokens: d, expected.
    """
    return side_tokens / (prompt_tokens + output_tokens / 2) * new_prompt_tokens / output_tokens
