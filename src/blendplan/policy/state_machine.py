"""The state machine of every policy: one function per event, whatever the policy.

Whoever runs the steps calls

    begin_step      once per step; answers the prefill tokens allowed in it
    next_request    which waiting request to try next, -1 for none; changes nothing that counts
    admitted        that request, or a preempted one again, was given room
    preempted       it lost its room and waits in the engine
    finished        it is done

The functions assume, and the callers guarantee, that the engine itself checks real room: the
policy only knows predictions.
"""

from blendplan.kernel import kernel
from blendplan.policy import paper_scanners as scanners
from blendplan.policy.blend import steps as blend
from blendplan.policy.state import BLEND, QUEUE, SCANNERS, SHARE, PolicyState


@kernel
def begin_step(state: PolicyState, running: int, used_tokens: float) -> int:
    """Start a step; answers how many prefill tokens it may compute.

    Args:
        state: of the policy.
        running: requests that run.
        used_tokens: KV tokens that they hold.
    """
    if state.kind == QUEUE:
        return state.max_num_batched_tokens
    if state.kind == BLEND:
        budget = blend.begin_step(
            state.blend, state.new_prompt_tokens, state.output_tokens, used_tokens
        )
        memory = blend.memory_share(state.blend)
        state.level[SHARE], state.level[SHARE + 1] = state.kv_tokens - memory, memory
    else:
        budget = scanners.begin_step(state, running)
    return min(budget, state.max_num_batched_tokens)


@kernel
def next_request(state: PolicyState, running: int) -> int:
    """The waiting request to try next, or -1 when none should be admitted now."""
    if state.kind == BLEND:
        return blend.next_request(
            state.blend, state.new_prompt_tokens, state.output_tokens, running
        )
    if state.cursor[0] > state.cursor[1]:
        return -1
    if state.kind == QUEUE:
        return state.order[state.cursor[0]]
    return scanners.next_request(state, running)


@kernel
def admitted(state: PolicyState, request: int) -> None:
    """Record that ``request`` was admitted, for the first time or again after a preemption."""
    if state.kind == BLEND:
        blend.admitted(state.blend, state.new_prompt_tokens, state.output_tokens, request)
    elif state.kind == QUEUE:
        if state.cursor[0] <= state.cursor[1] and state.order[state.cursor[0]] == request:
            state.cursor[0] += 1
    else:
        scanners.admitted(state, request)


@kernel
def preempted(state: PolicyState, request: int) -> None:
    """Record that ``request`` lost its KV cache and waits in the engine to be admitted again."""
    if state.kind == BLEND:
        blend.released(state.blend, state.new_prompt_tokens, state.output_tokens, request, False)
    elif state.kind == SCANNERS:
        scanners.released(state, request)


@kernel
def finished(state: PolicyState, request: int) -> None:
    """Record that ``request`` is done and has freed its KV cache."""
    if state.kind == BLEND:
        blend.released(state.blend, state.new_prompt_tokens, state.output_tokens, request, True)
    elif state.kind == SCANNERS:
        scanners.released(state, request)
