"""The policy `blend`: both kinds of work spread over the whole run, and no memory overcommitted.

Memory-heavy requests follow a *timetable*. Each has a planned start, spread evenly over the steps
in which it can still end with everybody else, so lengths stay mixed, finish times are staggered
and the run has no tail. A request whose time has come is admitted when the *projected peak* of KV
tokens, over the predicted ends of all running requests, stays under the cap.

Compute-heavy requests fill the rest of each step, in depth-first order. Their share is set so that
the step's compute time stands to its memory time as the remaining compute to the remaining memory
work, so that both run out together; a step is never left so empty that reading the weights
dominates it.

Times inside the policy are counted in steps: a running request generates one token per step.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel

# Buckets of predicted ends: the projected peak is exact to 1/BUCKETS of the longest output.
BUCKETS = 128

# Entries of BlendState.now.
CLOCK, TIMETABLE, SHORT_TOKENS, COMPUTE_TOKENS, READ_COUNT, READ_OFFSET = range(6)
TOKENS_LEFT, READS_LEFT, BLOCKED = range(6, 9)
# Entries of BlendState.cursor.
NEXT_COMPUTE, NEXT_MEMORY, LONG_RUNNING, BUCKET = range(4)


class BlendParameters(NamedTuple):
    """Constants of one run.

    Attributes:
        kv_tokens: M.
        memory_cap, compute_cap: shares of M that the projected peak may reach when a request of
            that side is admitted.
        compute_reserve: KV tokens that the flow of compute-heavy requests is expected to hold.
        bucket_steps: width of a bucket; requests with longer outputs are *long*.
        steps: planned length of the run.
        tokens: tokens to compute in the whole run, prefixes once.
        reads: KV tokens to read in the whole run.
        least_tokens: tokens that a step needs for its compute time to be worth its weights.
    """

    kv_tokens: float
    memory_cap: float
    compute_cap: float
    compute_reserve: float
    bucket_steps: int
    steps: float
    tokens: float
    reads: float
    least_tokens: int


class BlendState(NamedTuple):
    """State of the policy over n requests.

    Attributes:
        parameters: constants.
        compute_order, memory_order: the two queues; int64.
        start_step: timetable of ``memory_order``, ascending; float64.
        prompt_tokens: prompt length, which every decode step reads; float64 [n].
        memory_side: True for requests of ``memory_order``; bool [n].
        started: step of admission; int64 [n].
        generated: tokens generated before a preemption; int64 [n].
        bucket: bucket that holds the request's predicted end, -1 for short ones; int64 [n].
        long_running, long_position: the running long requests and where each stands there;
            int64 [n].
        counts, offsets: per bucket, number of requests that end in it, and sum of resident prompt
            tokens less their step of admission; int64 [BUCKETS * 2], float64 [BUCKETS * 2].
        cursor: NEXT_COMPUTE, NEXT_MEMORY, LONG_RUNNING, BUCKET; int64 [4].
        now: CLOCK and TIMETABLE in steps; SHORT_TOKENS and COMPUTE_TOKENS, KV tokens that running
            short and compute-heavy requests hold at their ends; READ_COUNT and READ_OFFSET, running
            requests and the sum of their prompts less their steps of admission; TOKENS_LEFT and
            READS_LEFT; BLOCKED, 1 while the next memory-heavy request is known not to fit;
            float64 [9].
    """

    parameters: BlendParameters
    compute_order: NDArray[np.int64]
    memory_order: NDArray[np.int64]
    start_step: NDArray[np.float64]
    prompt_tokens: NDArray[np.float64]
    memory_side: NDArray[np.bool_]
    started: NDArray[np.int64]
    generated: NDArray[np.int64]
    bucket: NDArray[np.int64]
    long_running: NDArray[np.int64]
    long_position: NDArray[np.int64]
    counts: NDArray[np.int64]
    offsets: NDArray[np.float64]
    cursor: NDArray[np.int64]
    now: NDArray[np.float64]


@kernel
def begin_step(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64]
) -> int:
    """Advance the clock; answers how many prefill tokens the step may compute."""
    now, parameters = state.now, state.parameters
    now[CLOCK] += 1
    now[TIMETABLE] += 1
    reads = now[READ_OFFSET] + now[READ_COUNT] * now[CLOCK]
    now[READS_LEFT] -= reads
    now[TOKENS_LEFT] -= now[READ_COUNT]
    if now[CLOCK] // parameters.bucket_steps > state.cursor[BUCKET]:
        _project_again(state, resident, output)
    if now[READS_LEFT] <= 0.0:
        return np.iinfo(np.int32).max
    # Compute to memory time of this step as of all that remains; the prices cancel.
    balanced = max(0.0, now[TOKENS_LEFT]) * reads / now[READS_LEFT]
    tokens = max(float(parameters.least_tokens), balanced)
    return max(1, int(np.ceil(tokens - now[READ_COUNT])))


@kernel
def next_request(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], running: int
) -> int:
    """The waiting request to try next, or -1 when none should be admitted now."""
    cursor = state.cursor
    compute_left = cursor[NEXT_COMPUTE] < len(state.compute_order)
    if cursor[NEXT_MEMORY] < len(state.memory_order):
        due = state.start_step[cursor[NEXT_MEMORY]] <= state.now[TIMETABLE]
        if running == 0 or ((due or not compute_left) and state.now[BLOCKED] == 0.0):
            request = state.memory_order[cursor[NEXT_MEMORY]]
            if running == 0 or _fits(state, resident[request], output[request], True):
                return request
            state.now[BLOCKED] = 1.0
    if compute_left:
        request = state.compute_order[cursor[NEXT_COMPUTE]]
        if running == 0 or _fits(state, resident[request], output[request], False):
            return request
    return -1


@kernel
def _fits(state: BlendState, prompt: float, output: float, memory_side: bool) -> bool:
    parameters, now = state.parameters, state.now
    if output > parameters.bucket_steps:
        cap = parameters.compute_cap * parameters.kv_tokens
        if memory_side:
            # Leave the compute side what its flow needs and does not hold now.
            cap = parameters.memory_cap * parameters.kv_tokens
            cap -= max(0.0, parameters.compute_reserve - now[COMPUTE_TOKENS])
        return _projected_peak(state, prompt, output) <= cap - now[SHORT_TOKENS]
    # A short request is gone before any of the long ones ends, so they only grow.
    long_tokens = 0.0
    count = state.cursor[LONG_RUNNING]
    if count > 0:
        long_tokens = state.offsets.sum() + count * (now[CLOCK] + output)
    return (
        long_tokens + now[SHORT_TOKENS] + prompt + output
        <= parameters.compute_cap * parameters.kv_tokens
    )


@kernel
def _projected_peak(state: BlendState, prompt: float, output: float) -> float:
    """Most KV tokens that long requests hold at a time, with one more admitted now."""
    width = state.parameters.bucket_steps
    clock = state.now[CLOCK]
    buckets = len(state.counts)
    current = state.cursor[BUCKET]
    end = clock + output
    count = 0.0
    offset = 0.0
    peak = 0.0
    for bucket in range(current + buckets - 1, current - 1, -1):
        slot = bucket % buckets
        count += state.counts[slot]
        offset += state.offsets[slot]
        time = min((bucket + 1.0) * width, max(end, bucket * float(width)))
        if count == 0.0 and time > end:
            continue
        used = offset + count * max(time, clock)
        if time <= end:
            used += prompt + time - clock
        peak = max(peak, used)
    return peak


@kernel
def admitted(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Record an admission, the first one or one after a preemption."""
    cursor, now = state.cursor, state.now
    if (
        cursor[NEXT_MEMORY] < len(state.memory_order)
        and state.memory_order[cursor[NEXT_MEMORY]] == request
    ):
        cursor[NEXT_MEMORY] += 1
        now[TOKENS_LEFT] -= resident[request]
    elif (
        cursor[NEXT_COMPUTE] < len(state.compute_order)
        and state.compute_order[cursor[NEXT_COMPUTE]] == request
    ):
        cursor[NEXT_COMPUTE] += 1
        now[TOKENS_LEFT] -= resident[request]
    clock = int(now[CLOCK])
    state.started[request] = clock
    now[READ_COUNT] += 1
    now[READ_OFFSET] += state.prompt_tokens[request] + state.generated[request] - clock
    if output[request] > state.parameters.bucket_steps:
        position = cursor[LONG_RUNNING]
        state.long_running[position] = request
        state.long_position[request] = position
        cursor[LONG_RUNNING] += 1
        _project(state, resident, output, request)
    else:
        now[SHORT_TOKENS] += resident[request] + output[request]
    if not state.memory_side[request]:
        now[COMPUTE_TOKENS] += resident[request] + output[request]


@kernel
def _project(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Enter a long request into the bucket of its predicted end."""
    width = state.parameters.bucket_steps
    elapsed = state.now[CLOCK] - state.started[request] + state.generated[request]
    left = output[request] - elapsed
    if left < 1.0:
        # It has outlived its prediction: the longer it has run, the longer it is likely to.
        left = max(float(width), 0.5 * elapsed)
    bucket = int((state.now[CLOCK] + left) // width)
    slot = min(bucket, state.cursor[BUCKET] + len(state.counts) - 1) % len(state.counts)
    state.bucket[request] = slot
    state.counts[slot] += 1
    state.offsets[slot] += _offset(state, resident, request)


@kernel
def _offset(state: BlendState, resident: NDArray[np.float64], request: int) -> float:
    return resident[request] + state.generated[request] - state.started[request]


@kernel
def _project_again(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64]
) -> None:
    """Enter all running long requests afresh, as time has passed the end of a bucket."""
    state.cursor[BUCKET] = int(state.now[CLOCK]) // state.parameters.bucket_steps
    state.counts[:] = 0
    state.offsets[:] = 0.0
    state.now[BLOCKED] = 0.0
    for position in range(state.cursor[LONG_RUNNING]):
        _project(state, resident, output, state.long_running[position])


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
    if output[request] > state.parameters.bucket_steps:
        slot = state.bucket[request]
        state.counts[slot] -= 1
        state.offsets[slot] -= _offset(state, resident, request)
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
        expected, actual = output[request], float(state.generated[request])
        prompt = state.prompt_tokens[request]
        now[TOKENS_LEFT] -= expected - actual
        now[READS_LEFT] -= (expected - actual) * (prompt + (expected + actual) / 2)
