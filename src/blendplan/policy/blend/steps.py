"""The policy `blend`: both kinds of work spread over the whole run, and no memory overcommitted.

Memory-heavy requests follow a *timetable*. Each has a planned start, spread evenly over the steps
in which it can still end with everybody else, so lengths stay mixed, finish times are staggered
and the run has no tail. A request whose time has come is admitted when the *projected peak* of KV
tokens, over the predicted ends of all running requests, stays under the cap.

Compute-heavy requests fill the rest of each step, in depth-first order. Their share is set so that
the step's compute time stands to its memory time as the remaining compute to the remaining memory
work, so that both run out together; a step is never left so empty that reading the weights
dominates it.

Predictions are uncertain. A long request enters the projection at three quantiles of the length
that it is likely to reach, given how long it has run; how far predictions are off is learned from
the requests that finish. When memory fills slower or faster than planned, the timetable is walked
faster or slower.

Times inside the policy are counted in steps: a running request generates one token per step.
"""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.policy.blend.calendar import (
    believe,
    project,
    project_again,
    projected_peak,
    strike,
)
from blendplan.policy.blend.learning import actual_reads, learn_from, predicted_reads
from blendplan.policy.blend.state import (
    BLOCKED,
    BUCKET,
    CLOCK,
    COMPUTE_TOKENS,
    CREDIT,
    LIKELY_READS,
    LONG_RUNNING,
    NEXT_COMPUTE,
    NEXT_MEMORY,
    READ_COUNT,
    READ_OFFSET,
    READS_DONE,
    READS_EXPECTED,
    READS_LEFT,
    READS_RUNNING,
    SHORT_TOKENS,
    TIMETABLE,
    TOKENS_LEFT,
    UNEXPECTED,
    BlendState,
)

# Share of a side's reads after which what finished requests have read outweighs predictions.
PRIOR_SHARE = 0.01


@kernel
def begin_step(
    state: BlendState,
    resident: NDArray[np.float64],
    output: NDArray[np.float64],
    used_tokens: float,
) -> int:
    """Advance the clock; answers how many prefill tokens the step may compute.

    Args:
        state: of this policy.
        resident: KV tokens that each prompt holds; float64 [n].
        output: expected output lengths; float64 [n].
        used_tokens: KV tokens that the engine's running requests really hold.
    """
    now, parameters = state.now, state.parameters
    now[CLOCK] += 1
    if now[CLOCK] // parameters.bucket_steps > state.cursor[BUCKET]:
        project_again(state, resident, output)
    expected = now[SHORT_TOKENS] + state.offsets.sum() + state.counts.sum() * now[CLOCK]
    now[UNEXPECTED] = max(0.0, used_tokens - expected)
    now[TIMETABLE] += 1.0 if now[BLOCKED] == 1.0 else _pace(state, used_tokens)
    reads = now[READ_OFFSET] + now[READ_COUNT] * now[CLOCK]
    now[READS_RUNNING] += reads
    now[TOKENS_LEFT] -= now[READ_COUNT]
    reads_left = _reads_left(state)
    if reads_left <= 0.0:
        return np.iinfo(np.int32).max
    # Compute to memory time of this step as of all that remains; the prices cancel.
    balanced = max(0.0, now[TOKENS_LEFT]) * reads / reads_left
    least = float(parameters.least_tokens)
    if used_tokens < 0.5 * parameters.kv_tokens:
        # Memory must fill before there is work to balance: prefill goes on at its average rate.
        least = max(least, parameters.tokens / parameters.steps) + now[READ_COUNT]
    budget = step_size(state, max(least, balanced)) - now[READ_COUNT]
    return int(max(1.0, budget))


@kernel
def step_size(state: BlendState, wanted: float) -> float:
    """Tokens of this step: an efficient size, such that steps have ``wanted`` on average."""
    most = len(state.size_below) - 1
    size = int(min(float(most), np.ceil(wanted)))
    below, above = state.size_below[size], state.size_above[size]
    if below == above:
        return float(size)
    state.now[CREDIT] += size - below
    if state.now[CREDIT] < above - below:
        return float(below)
    state.now[CREDIT] -= above - below
    return float(above)


@kernel
def _read_ratio(state: BlendState, side: int) -> float:
    """KV tokens that the requests of a side read, as a multiple of what was predicted.

    Running requests count with what they are likely to reach: those that have finished are the
    short ones. Until a part of the run is over, predictions count as much as what was seen.
    """
    now = state.now
    prior = PRIOR_SHARE * state.parameters.reads[side] + 1.0
    seen = now[READS_DONE + side] + now[LIKELY_READS + side]
    return (seen + prior) / (now[READS_EXPECTED + side] + prior)


@kernel
def _reads_left(state: BlendState) -> float:
    """KV tokens still to be read, predictions corrected by what was seen."""
    now = state.now
    left = -now[READS_RUNNING]
    for side in range(2):
        left += _read_ratio(state, side) * now[READS_LEFT + side] + now[LIKELY_READS + side]
    return left


@kernel
def _pace(state: BlendState, used_tokens: float) -> float:
    """Steps of the timetable to advance in one step of the engine.

    More than one where requests end earlier than predicted, so that memory fills as planned; less
    where they end later.
    """
    now = state.now
    expected = state.belief_offsets.sum() + state.belief_counts.sum() * now[CLOCK]
    # Part of the capacity on both sides keeps the ratio calm while memory fills and empties.
    calm = 0.05 * state.parameters.kv_tokens
    held = max(0.0, used_tokens - now[SHORT_TOKENS])
    early = max((expected + calm) / (held + calm), 1.0 / _read_ratio(state, 1))
    return min(16.0, max(0.25, early))


@kernel
def next_request(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], running: int
) -> int:
    """The waiting request to try next, or -1 when none should be admitted now."""
    cursor = state.cursor
    if cursor[NEXT_MEMORY] < len(state.memory_order):
        due = state.start_step[cursor[NEXT_MEMORY]] <= state.now[TIMETABLE]
        if running == 0 or (due and state.now[BLOCKED] == 0.0):
            request = state.memory_order[cursor[NEXT_MEMORY]]
            if running == 0 or _fits(state, request, resident[request], output[request]):
                return request
            state.now[BLOCKED] = 1.0
    if cursor[NEXT_COMPUTE] < len(state.compute_order):
        request = state.compute_order[cursor[NEXT_COMPUTE]]
        if running == 0 or _fits(state, request, resident[request], output[request]):
            return request
    return -1


@kernel
def _fits(state: BlendState, request: int, prompt: float, output: float) -> bool:
    parameters, now = state.parameters, state.now
    cap = parameters.compute_cap * parameters.kv_tokens
    if state.memory_side[request]:
        cap = memory_share(state)
    cap -= now[SHORT_TOKENS] + now[UNEXPECTED]
    if _is_long(state, output):
        return projected_peak(state, request, prompt, output) <= cap
    # A short request is gone before any of the long ones ends, so they only grow.
    long_tokens = state.offsets.sum() + state.counts.sum() * (now[CLOCK] + output)
    return long_tokens + prompt + output <= cap


@kernel
def memory_share(state: BlendState) -> float:
    """KV tokens that running requests may reach when a memory-heavy one is admitted.

    The rest is what the flow of the compute side needs and does not hold now.
    """
    parameters = state.parameters
    reserve = min(0.5 * parameters.kv_tokens, parameters.compute_reserve * _read_ratio(state, 0))
    held_back = max(0.0, reserve - state.now[COMPUTE_TOKENS])
    return max(0.0, parameters.memory_cap * parameters.kv_tokens - held_back)


@kernel
def _is_long(state: BlendState, output: float) -> bool:
    return output > state.parameters.bucket_steps


@kernel
def admitted(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Record an admission, the first one or one after a preemption."""
    cursor, now = state.cursor, state.now
    if _take_from_queue(state, request):
        side = int(state.memory_side[request])
        reads = predicted_reads(state, request, output[request])
        now[TOKENS_LEFT] -= resident[request]
        now[READS_LEFT + side] -= reads
        now[READS_EXPECTED + side] += reads
        now[LIKELY_READS + side] += reads
        state.likely_reads[request] = reads
    clock = int(now[CLOCK])
    state.started[request] = clock
    now[READ_COUNT] += 1
    now[READ_OFFSET] += state.prompt_tokens[request] + state.generated[request] - clock
    if _is_long(state, output[request]):
        position = cursor[LONG_RUNNING]
        state.long_running[position] = request
        state.long_position[request] = position
        cursor[LONG_RUNNING] += 1
        project(state, resident, output, request)
        believe(state, resident, output, request)
    else:
        now[SHORT_TOKENS] += resident[request] + output[request]
    if not state.memory_side[request]:
        now[COMPUTE_TOKENS] += resident[request] + output[request]


@kernel
def _take_from_queue(state: BlendState, request: int) -> bool:
    """Move past a request that heads a queue; False for one that is admitted again."""
    for entry, queue in ((NEXT_MEMORY, state.memory_order), (NEXT_COMPUTE, state.compute_order)):
        position = state.cursor[entry]
        if position < len(queue) and queue[position] == request:
            state.cursor[entry] += 1
            return True
    return False


@kernel
def released(
    state: BlendState,
    resident: NDArray[np.float64],
    output: NDArray[np.float64],
    request: int,
    done: bool,
) -> None:
    """Record that a running request gave its KV cache back: it is done, or was preempted."""
    cursor, now = state.cursor, state.now
    now[BLOCKED] = 0.0
    started = state.started[request]
    elapsed = now[CLOCK] - started
    now[READ_COUNT] -= 1
    now[READ_OFFSET] -= state.prompt_tokens[request] + state.generated[request] - started
    if _is_long(state, output[request]):
        strike(state, resident, request)
        cursor[LONG_RUNNING] -= 1
        last = state.long_running[cursor[LONG_RUNNING]]
        position = state.long_position[request]
        state.long_running[position] = last
        state.long_position[last] = position
    else:
        now[SHORT_TOKENS] -= resident[request] + output[request]
    if not state.memory_side[request]:
        now[COMPUTE_TOKENS] -= resident[request] + output[request]
    state.generated[request] += int(elapsed)
    if done:
        # What was expected of it and did not happen is no work left.
        expected, actual = output[request], max(1.0, float(state.generated[request]))
        now[TOKENS_LEFT] -= expected - actual
        side = int(state.memory_side[request])
        reads_done = actual_reads(state, request, actual)
        now[LIKELY_READS + side] -= state.likely_reads[request]
        now[READS_DONE + side] += reads_done
        now[READS_RUNNING] -= reads_done
        if _is_long(state, expected):
            learn_from(state, request, expected, actual)
