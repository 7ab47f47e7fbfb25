"""The policy `blend`: both kinds of work spread over the whole run, and memory as full as it pays.

Memory-heavy requests follow a *timetable*: their planned starts are spread evenly over the steps in
which they can still end with everybody else, so lengths stay mixed, finish times are staggered and
the run has no tail. The next one is admitted when the *projected peak* of KV tokens, over the
likely ends of all running requests, stays under a limit. The limit moves with what preemptions and
empty memory cost.

Compute-heavy requests fill the rest of each step, in depth-first order. Their share is set so that
the step's compute time stands to its memory time as the remaining compute to the remaining memory
work, so that both run out together; a step is never left so empty that reading the weights
dominates it.

Predictions are uncertain. A long request enters the projection with each of its likely lengths that
it has not outlived; how far predictions are off is learned from the requests that finish.

Times inside the policy are counted in steps: a running request generates one token per step.
"""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.calendar import (
    project,
    project_again,
    projected_peak,
    strike,
)
from blendplan.policy.blend.learning import actual_reads, learn_from, reads_of
from blendplan.policy.blend.state import BlendState
from blendplan.policy.state_machine import Transitions, in_turn

# Share of a side's reads after which what finished requests have read outweighs predictions.
# Chosen on the paper's four workloads (benchmarks/paper.py goals).
PRIOR_SHARE = 0.01
# The rest was chosen on the tuning half of the mixtures (benchmarks/mixtures.py).
# Prefill goes on at most that many times faster where memory is empty, and past its balance, by at
# most so many tokens a step, while less than that share of what memory may hold is in use.
MOST_HASTE = 4.0
ROOMY = 0.8
HASTY_TOKENS = 512.0
# The limit falls when more than the first share of the computed tokens was lost to preemptions, and
# rises when less than the second was and more than that share of memory is empty.
MUCH_LOST, LITTLE_LOST = 0.03, 0.01
EMPTY = 0.05
FALL, RISE = 0.95, 1.05
LEAST_LIMIT = 0.9


@kernel
def _begin_step(state: BlendState, running: int, used_tokens: float) -> int:
    budget = _prefill_tokens(state, used_tokens)
    now, parameters = state.now[0], state.parameters
    if parameters.burst_steps == 1:
        return budget
    now.saved_tokens += budget
    if now.clock >= now.burst_end:
        now.burst_tokens = 0.0
    if now.clock % parameters.burst_steps == 0:
        now.burst_tokens, now.saved_tokens = now.saved_tokens, 0.0
        # What is more than a step takes goes on in those after it.
        now.burst_end = now.clock + np.ceil(now.burst_tokens / parameters.most_tokens)
    # A prompt that has begun is not held up: admission is.
    return parameters.most_tokens


@kernel
def _prefill_tokens(state: BlendState, used_tokens: float) -> int:
    """Prefill that is due in a step, at least a token."""
    now, parameters = state.now[0], state.parameters
    now.clock += 1
    now.used_tokens += used_tokens
    if now.clock // parameters.bucket_steps > now.bucket:
        _weigh(state)
        project_again(state)
    expected = now.short_tokens + state.offsets.sum() + state.counts.sum() * now.clock
    now.unexpected_tokens = max(0.0, used_tokens - expected)
    reads = parameters.read_growth * (now.running_offset + now.running * now.clock)
    reads += now.running_level
    now.reads_running += reads
    now.tokens_left -= now.running
    now.new_tokens += now.running
    reads_left = _reads_left(state)
    if reads_left <= 0.0:
        return parameters.most_tokens
    # Compute to memory time of this step as of all that remains; the prices cancel.
    balanced = max(0.0, now.tokens_left) * reads / reads_left
    least = float(parameters.least_tokens)
    if used_tokens < 0.5 * parameters.kv_tokens:
        # Memory must fill before there is work to balance: prefill goes on at its average rate.
        least = max(least, parameters.tokens / parameters.steps) + now.running
    if now.next_memory < len(state.memory_order):
        # Balance for a full memory; else it would stay as empty as it happens to be.
        full = now.limit * parameters.kv_tokens
        balanced *= min(MOST_HASTE, max(1.0, full / max(1.0, used_tokens)))
        if used_tokens < ROOMY * full and not now.blocked:
            prompt = state.new_prompt_tokens[state.memory_order[now.next_memory]]
            balanced = max(balanced, now.running + min(prompt, HASTY_TOKENS))
    budget = _step_size(state, max(least, balanced)) - now.running
    return min(parameters.most_tokens, int(max(1.0, budget)))


@kernel
def _weigh(state: BlendState) -> None:
    """Move the limit of the projected peak: preempting has a price, and so has empty memory."""
    now, parameters = state.now[0], state.parameters
    empty = 1.0 - now.used_tokens / ((now.clock - now.weighed) * parameters.kv_tokens)
    lost = now.lost_tokens / max(1.0, now.new_tokens)
    if lost > MUCH_LOST:
        now.limit = max(LEAST_LIMIT, FALL * now.limit)
    elif now.blocked and lost < LITTLE_LOST and empty > EMPTY:
        now.limit = min(max(now.limit, parameters.most_limit), RISE * now.limit)
    now.lost_tokens = now.new_tokens = now.used_tokens = 0.0
    now.weighed = now.clock


@kernel
def _step_size(state: BlendState, wanted: float) -> float:
    """Tokens of this step: an efficient size, such that steps have ``wanted`` on average."""
    now = state.now[0]
    size = int(min(float(state.parameters.most_tokens), np.ceil(wanted)))
    below, above = state.size_below[size], state.size_above[size]
    if below == above:
        return float(size)
    now.credit_tokens += size - below
    if now.credit_tokens < above - below:
        return float(below)
    now.credit_tokens -= above - below
    return float(above)


@kernel
def _read_ratio(state: BlendState, side: int) -> float:
    """KV tokens that the requests of a side read, as a multiple of what was predicted.

    Running requests count with what they are likely to reach: those that have finished are the
    short ones. Until a part of the run is over, predictions count as much as what was seen.
    """
    now = state.now[0]
    prior = PRIOR_SHARE * state.parameters.reads[side] + 1.0
    seen = now.reads_done[side] + now.reads_likely[side]
    return (seen + prior) / (now.reads_expected[side] + prior)


@kernel
def _reads_left(state: BlendState) -> float:
    """KV tokens still to be read, predictions corrected by what was seen."""
    now = state.now[0]
    left = -now.reads_running
    for side in range(2):
        left += _read_ratio(state, side) * now.reads_left[side] + now.reads_likely[side]
    return left


@kernel
def _next_request(state: BlendState, running: int) -> int:
    now = state.now[0]
    if running > 0 and state.parameters.burst_steps > 1 and now.burst_tokens <= 0.0:
        return -1
    if now.next_memory < len(state.memory_order) and (running == 0 or not now.blocked):
        request = state.memory_order[now.next_memory]
        if running == 0 or _fits(state, request):
            return request
        now.blocked = True
    if now.next_compute < len(state.compute_order):
        request = state.compute_order[now.next_compute]
        if running == 0 or _fits(state, request):
            return request
    return -1


@kernel
def _fits(state: BlendState, request: int) -> bool:
    parameters, now = state.parameters, state.now[0]
    cap = now.limit * parameters.kv_tokens
    if state.memory_side[request]:
        cap = _memory_share(state)
    cap -= now.short_tokens + now.unexpected_tokens
    if _is_long(state, request):
        return projected_peak(state, request) <= cap
    # A short request is gone before any of the long ones ends, so they only grow.
    output = state.output_tokens[request]
    long_tokens = state.offsets.sum() + state.counts.sum() * (now.clock + output)
    return long_tokens + state.held_tokens[request] + parameters.growth * output <= cap


@kernel
def _memory_share(state: BlendState) -> float:
    """KV tokens that running requests may reach when a memory-heavy one is admitted.

    The rest is what the flow of the compute side needs and does not hold now.
    """
    parameters, now = state.parameters, state.now[0]
    reserve = min(0.5 * parameters.kv_tokens, parameters.compute_reserve * _read_ratio(state, 0))
    held_back = max(0.0, reserve - state.now[0].compute_tokens)
    return max(0.0, now.limit * parameters.kv_tokens - held_back)


@kernel
def _shares(state: BlendState) -> tuple[float, float]:
    memory = min(state.parameters.kv_tokens, _memory_share(state))
    return state.parameters.kv_tokens - memory, memory


@kernel
def _is_long(state: BlendState, request: int) -> bool:
    return state.outcomes[request, -1] > state.parameters.bucket_steps


@kernel
def _tokens_at_end(state: BlendState, request: int) -> float:
    """KV tokens that a request holds when it has generated what is expected of it."""
    grown = state.parameters.growth * state.output_tokens[request]
    return state.held_tokens[request] + grown


@kernel
def _admitted(state: BlendState, request: int) -> None:
    now = state.now[0]
    if _take_from_queue(state, request):
        side = int(state.memory_side[request])
        reads = state.reads[request]
        now.tokens_left -= state.new_prompt_tokens[request]
        now.new_tokens += state.new_prompt_tokens[request]
        now.burst_tokens -= state.new_prompt_tokens[request]
        now.reads_left[side] -= reads
        now.reads_expected[side] += reads
        now.reads_likely[side] += reads
        state.likely_reads[request] = reads
    clock = int(now.clock)
    state.started[request] = clock
    now.running += 1
    now.running_offset += state.prompt_tokens[request] + state.generated[request] - clock
    now.running_level += state.level_reads[request]
    enter(state, request)


@kernel
def enter(state: BlendState, request: int) -> None:
    """Enter a running request among those that hold KV tokens."""
    now = state.now[0]
    if _is_long(state, request):
        position = now.long_running
        state.long_running[position] = request
        state.long_position[request] = position
        now.long_running += 1
        project(state, request)
    else:
        now.short_tokens += _tokens_at_end(state, request)
    if not state.memory_side[request]:
        now.compute_tokens += _tokens_at_end(state, request)


@kernel
def _take_from_queue(state: BlendState, request: int) -> bool:
    """Move past a request that heads a queue; False for one that is admitted again."""
    now = state.now[0]
    place = now.next_memory
    if place < len(state.memory_order) and state.memory_order[place] == request:
        now.next_memory += 1
        return True
    place = now.next_compute
    if place < len(state.compute_order) and state.compute_order[place] == request:
        now.next_compute += 1
        return True
    return False


@kernel
def _preempted(state: BlendState, request: int) -> None:
    """It gave its KV cache back, all of which must be computed again."""
    _released(state, request)
    state.now[0].lost_tokens += state.prompt_tokens[request] + state.generated[request]


@kernel
def _released(state: BlendState, request: int) -> None:
    """It gave its KV cache back, and keeps what it has generated."""
    now = state.now[0]
    now.blocked = False
    started = state.started[request]
    now.running -= 1
    now.running_offset -= state.prompt_tokens[request] + state.generated[request] - started
    now.running_level -= state.level_reads[request]
    if _is_long(state, request):
        strike(state, request)
        now.long_running -= 1
        last = state.long_running[now.long_running]
        position = state.long_position[request]
        state.long_running[position] = last
        state.long_position[last] = position
    else:
        now.short_tokens -= _tokens_at_end(state, request)
    if not state.memory_side[request]:
        now.compute_tokens -= _tokens_at_end(state, request)
    state.generated[request] += int(now.clock - started)


@kernel
def _finished(state: BlendState, request: int) -> None:
    """It gave its KV cache back; what was expected of it and did not happen is no work left."""
    _released(state, request)
    now = state.now[0]
    steps = float(state.generated[request])
    actual = max(1.0, steps)
    now.tokens_left -= state.output_tokens[request] - steps
    side = int(state.memory_side[request])
    now.reads_likely[side] -= state.likely_reads[request]
    now.reads_done[side] += actual_reads(state, request, actual)
    # As its steps have added it up: one token more in each.
    context_tokens = steps * (state.prompt_tokens[request] + (steps + 1.0) / 2)
    now.reads_running -= reads_of(state, request, context_tokens, steps)
    if _is_long(state, request):
        learn_from(state, request, actual)


def upcoming(state: BlendState, count: int) -> NDArray[np.int64]:
    """The heads of both queues in turn; int64."""
    now = state.now[0]
    memory = state.memory_order[now.next_memory : now.next_memory + count]
    compute = state.compute_order[now.next_compute : now.next_compute + count]
    return in_turn(memory, compute)


TRANSITIONS = Transitions(_begin_step, _next_request, _admitted, _preempted, _finished, _shares)
