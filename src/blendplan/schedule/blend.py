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

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.schedule.normal import normal_quantile, normal_share

# Buckets of predicted ends: the projected peak is exact to 1/BUCKETS of the longest output.
BUCKETS = 128
# Share of a side's reads after which what finished requests have read outweighs predictions.
PRIOR_SHARE = 0.02
# Standard normal quantiles at 1/6, 1/2 and 5/6: three equally likely thirds, each by its middle.
QUANTILES = 3
_MIDDLES = (1.0 / 6.0, 0.5, 5.0 / 6.0)

# Entries of BlendState.now.
CLOCK, TIMETABLE, SHORT_TOKENS, COMPUTE_TOKENS, READ_COUNT, READ_OFFSET = range(6)
TOKENS_LEFT, BLOCKED, UNEXPECTED, ERRORS, ERROR_SQUARES, READS_RUNNING = range(6, 12)
# Two entries each, compute side first.
READS_LEFT, READS_DONE, READS_EXPECTED = 12, 14, 16
NOW = 18
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
        reads: KV tokens to read in the whole run, by the compute and by the memory side.
        least_tokens: tokens that a step needs for its compute time to be worth its weights.
    """

    kv_tokens: float
    memory_cap: float
    compute_cap: float
    compute_reserve: float
    bucket_steps: int
    steps: float
    tokens: float
    reads: tuple[float, float]
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
        spread: standard deviation of the logarithm of the output length; float64 [n].
        bucket: buckets that hold a long request's predicted end, one for each of `QUANTILES`;
            int64 [n, 3].
        long_running, long_position: the running long requests and where each stands there;
            int64 [n].
        counts, offsets: per bucket, number of requests that end in it, and sum of resident prompt
            tokens less their step of admission; float64 [BUCKETS * 2].
        belief_counts, belief_offsets: the same, of all requests as if they ended when predicted,
            whether they have or not; float64 [BUCKETS * 2].
        cursor: NEXT_COMPUTE, NEXT_MEMORY, LONG_RUNNING, BUCKET; int64 [4].
        now: CLOCK and TIMETABLE in steps; SHORT_TOKENS and COMPUTE_TOKENS, KV tokens that running
            short and compute-heavy requests hold at their ends; READ_COUNT and READ_OFFSET, running
            requests and the sum of their prompts less their steps of admission; TOKENS_LEFT and
            READS_LEFT; BLOCKED, 1 while the next memory-heavy request is known not to fit;
            UNEXPECTED, KV tokens in use that no prediction accounts for; ERRORS and ERROR_SQUARES,
            number and sum of squares of the logarithm of actual over predicted output length;
            float64 [NOW].
    """

    parameters: BlendParameters
    compute_order: NDArray[np.int64]
    memory_order: NDArray[np.int64]
    start_step: NDArray[np.float64]
    prompt_tokens: NDArray[np.float64]
    memory_side: NDArray[np.bool_]
    started: NDArray[np.int64]
    generated: NDArray[np.int64]
    spread: NDArray[np.float64]
    bucket: NDArray[np.int64]
    long_running: NDArray[np.int64]
    long_position: NDArray[np.int64]
    counts: NDArray[np.float64]
    offsets: NDArray[np.float64]
    belief_counts: NDArray[np.float64]
    belief_offsets: NDArray[np.float64]
    cursor: NDArray[np.int64]
    now: NDArray[np.float64]


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
        _project_again(state, resident, output)
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
    budget = max(float(parameters.least_tokens), balanced) - now[READ_COUNT]
    if used_tokens < 0.5 * parameters.kv_tokens:
        # Memory must fill before decoding alone can make a full step.
        budget = max(budget, float(parameters.least_tokens))
    return max(1, int(np.ceil(budget)))


@kernel
def reads_of(prompt: float, output: float) -> float:
    """KV tokens that a request reads while it decodes."""
    return output * (prompt + output / 2)


@kernel
def _reads_left(state: BlendState) -> float:
    """KV tokens still to be read, expectations corrected by what finished requests have read."""
    now, parameters = state.now, state.parameters
    left = -now[READS_RUNNING]
    for side in range(2):
        # Until a part of the run is over, predictions count as much as what was seen.
        prior = PRIOR_SHARE * parameters.reads[side] + 1.0
        ratio = (now[READS_DONE + side] + prior) / (now[READS_EXPECTED + side] + prior)
        left += ratio * now[READS_LEFT + side]
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
    return min(16.0, max(0.25, (expected + calm) / (held + calm)))


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
        return _projected_peak(state, request, prompt, output) <= cap
    # A short request is gone before any of the long ones ends, so they only grow.
    long_tokens = state.offsets.sum() + state.counts.sum() * (now[CLOCK] + output)
    return long_tokens + prompt + output <= cap


@kernel
def memory_share(state: BlendState) -> float:
    """KV tokens that running requests may reach when a memory-heavy one is admitted.

    The rest is what the flow of the compute side needs and does not hold now.
    """
    parameters = state.parameters
    held_back = max(0.0, parameters.compute_reserve - state.now[COMPUTE_TOKENS])
    return max(0.0, parameters.memory_cap * parameters.kv_tokens - held_back)


@kernel
def _is_long(state: BlendState, output: float) -> bool:
    return output > state.parameters.bucket_steps


@kernel
def _projected_peak(state: BlendState, request: int, prompt: float, output: float) -> float:
    """Most KV tokens that long requests hold at a time, with one more admitted now."""
    width = state.parameters.bucket_steps
    clock = state.now[CLOCK]
    buckets = len(state.counts)
    current = state.cursor[BUCKET]
    short_end = clock + likely_length(state, request, output, 0.0, 0)
    middle_end = clock + likely_length(state, request, output, 0.0, 1)
    long_end = clock + likely_length(state, request, output, 0.0, 2)
    count = 0.0
    offset = 0.0
    peak = 0.0
    for bucket in range(current + buckets - 1, current - 1, -1):
        slot = bucket % buckets
        count += state.counts[slot]
        offset += state.offsets[slot]
        start = max(clock, bucket * float(width))
        if start > long_end and count < 0.5 / QUANTILES:
            continue
        end = max(clock, (bucket + 1.0) * width)
        # The new request ends within a bucket at its own time, all others at the bucket's end.
        alive = int(start <= short_end) + int(start <= middle_end) + int(start <= long_end)
        own = prompt + min(end, max(start, long_end)) - clock
        peak = max(peak, offset + count * end + own * alive / QUANTILES)
    return peak


@kernel
def likely_length(
    state: BlendState, request: int, output: float, elapsed: float, third: int
) -> float:
    """Output length that a request reaches in the short, middle or long third of cases.

    The length is taken as log-normal around its expectation, given that it exceeds ``elapsed``.
    """
    errors = state.now[ERRORS]
    learned = np.sqrt(state.now[ERROR_SQUARES] / (errors + 4.0))
    spread = max(state.spread[request], learned)
    if spread < 0.01:
        # Known. Where it is outlived all the same: the longer it has run, the longer it will.
        return output if output > elapsed else 1.5 * elapsed + 1.0
    middle = np.log(output) - spread * spread / 2
    passed = 0.0
    if elapsed > 0.0:
        passed = normal_share((np.log(elapsed) - middle) / spread)
    share = min(0.999, passed + (1.0 - passed) * _MIDDLES[third])
    length = np.exp(middle + spread * normal_quantile(share))
    return max(elapsed + 1.0, min(length, 0.5 * state.parameters.kv_tokens))


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
    if _is_long(state, output[request]):
        position = cursor[LONG_RUNNING]
        state.long_running[position] = request
        state.long_position[request] = position
        cursor[LONG_RUNNING] += 1
        _project(state, resident, output, request)
        _believe(state, resident, output, request)
    else:
        now[SHORT_TOKENS] += resident[request] + output[request]
    if not state.memory_side[request]:
        now[COMPUTE_TOKENS] += resident[request] + output[request]


@kernel
def _project(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Enter a long request into the buckets of its likely ends."""
    clock = state.now[CLOCK]
    elapsed = clock - state.started[request] + state.generated[request]
    for third in range(QUANTILES):
        left = likely_length(state, request, output[request], elapsed, third) - elapsed
        bucket = int((clock + left) // state.parameters.bucket_steps)
        slot = min(bucket, state.cursor[BUCKET] + len(state.counts) - 1) % len(state.counts)
        state.bucket[request, third] = slot
        state.counts[slot] += 1.0 / QUANTILES
        state.offsets[slot] += _offset(state, resident, request) / QUANTILES


@kernel
def _believe(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Enter a long request into the bucket of its predicted end, to stay until then."""
    end = state.now[CLOCK] + max(1.0, output[request] - state.generated[request])
    bucket = int(end // state.parameters.bucket_steps)
    slot = min(bucket, state.cursor[BUCKET] + len(state.counts) - 1) % len(state.counts)
    state.belief_counts[slot] += 1.0
    state.belief_offsets[slot] += _offset(state, resident, request)


@kernel
def _offset(state: BlendState, resident: NDArray[np.float64], request: int) -> float:
    return resident[request] + state.generated[request] - state.started[request]


@kernel
def _project_again(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64]
) -> None:
    """Enter all running long requests afresh, as time has passed the end of a bucket."""
    current = int(state.now[CLOCK]) // state.parameters.bucket_steps
    for bucket in range(state.cursor[BUCKET], current):
        state.belief_counts[bucket % len(state.counts)] = 0.0
        state.belief_offsets[bucket % len(state.counts)] = 0.0
    state.cursor[BUCKET] = current
    state.counts[:] = 0.0
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
    if _is_long(state, output[request]):
        for third in range(QUANTILES):
            slot = state.bucket[request, third]
            state.counts[slot] -= 1.0 / QUANTILES
            state.offsets[slot] -= _offset(state, resident, request) / QUANTILES
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
        prompt = state.prompt_tokens[request]
        now[TOKENS_LEFT] -= expected - actual
        side = int(state.memory_side[request])
        reads_expected, reads_done = reads_of(prompt, expected), reads_of(prompt, actual)
        now[READS_LEFT + side] -= reads_expected
        now[READS_EXPECTED + side] += reads_expected
        now[READS_DONE + side] += reads_done
        now[READS_RUNNING] -= reads_done
        if _is_long(state, expected):
            error = np.log(actual / expected)
            now[ERRORS] += 1
            now[ERROR_SQUARES] += error * error
