"""The calendar of predicted ends: how many KV tokens long requests will hold, and when.

Requests are entered by the bucket of steps in which they are expected to end, as a count and a sum
of offsets (prompt tokens - step of admission). What they hold at a time tau is then
offset + count * tau over all buckets that end later, whatever the number of requests.
"""

import numpy as np

from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.learning import (
    CERTAIN,
    belief,
    elapsed_steps,
    expect_reads,
    learn,
)
from blendplan.policy.blend.normal import normal_quantile, normal_share
from blendplan.policy.blend.state import QUANTILES, BlendState

# Three equally likely thirds, each by its middle.
_MIDDLES = (1.0 / 6.0, 0.5, 5.0 / 6.0)


@kernel
def projected_peak(state: BlendState, request: int) -> float:
    """Most KV tokens that long requests hold at a time while one more, admitted now, runs.

    Each time counts with its expectation and `caution` standard deviations, requests being
    independent. Between its first and its last likely end a request that holds h tokens adds
    2/9 h^2 to the variance.
    """
    now = state.now[0]
    width = state.parameters.bucket_steps
    caution = state.parameters.caution
    buckets = len(state.counts)
    clock, current = now.clock, now.bucket
    short_end = clock + likely_length(state, request, 0.0, 0)
    middle_end = clock + likely_length(state, request, 0.0, 1)
    long_end = clock + likely_length(state, request, 0.0, 2)
    prompt = state.new_prompt_tokens[request]
    count = 0.0
    offset = 0.0
    peak = 0.0
    unsure_count, unsure_offset, unsure_square = 0.0, 0.0, 0.0
    for bucket in range(current + buckets - 1, current - 1, -1):
        slot = bucket % buckets
        unsure = state.unsure[slot]
        count += state.counts[slot]
        offset += state.offsets[slot]
        unsure_count += unsure.count
        unsure_offset += unsure.offset
        unsure_square += unsure.square
        start = max(clock, bucket * float(width))
        if start > long_end:
            # It is gone by then: what others hold is not for it to answer for.
            continue
        end = max(clock, (bucket + 1.0) * width)
        # The new request ends within a bucket at its own time, all others at the bucket's end.
        alive = int(start <= short_end) + int(start <= middle_end) + int(start <= long_end)
        own = prompt + min(end, max(start, long_end)) - clock
        held = offset + count * end + own * alive / QUANTILES
        variance = unsure_square + 2.0 * unsure_offset * end + unsure_count * end * end
        variance = 2.0 / 9.0 * max(0.0, variance) + own * own * alive * (QUANTILES - alive) / 9.0
        peak = max(peak, held + caution * np.sqrt(variance))
    return peak


@kernel
def likely_length(state: BlendState, request: int, elapsed: float, third: int) -> float:
    """Output length that a request reaches in the short, middle or long third of cases.

    The length is taken as log-normal around its expectation, given that it exceeds ``elapsed``.
    """
    middle, spread = belief(state, request)
    if spread < CERTAIN:
        # Known. Where it is outlived all the same: the longer it has run, the longer it will.
        output = state.output_tokens[request]
        return output if output > elapsed else 1.5 * elapsed + 1.0
    passed = 0.0
    if elapsed > 0.0:
        passed = normal_share((np.log(elapsed) - middle) / spread)
    share = min(0.999, passed + (1.0 - passed) * _MIDDLES[third])
    length = np.exp(middle + spread * normal_quantile(share))
    return max(elapsed + 1.0, min(length, 0.5 * state.parameters.kv_tokens))


@kernel
def project(state: BlendState, request: int) -> None:
    """Enter a long request into the buckets of its likely ends."""
    elapsed = elapsed_steps(state, request)
    for third in range(QUANTILES):
        left = likely_length(state, request, elapsed, third) - elapsed
        slot = _slot(state, state.now[0].clock + left)
        state.bucket[request, third] = slot
        state.counts[slot] += 1.0 / QUANTILES
        state.offsets[slot] += _offset(state, request) / QUANTILES
    _doubt(state, request, 1.0)


@kernel
def _doubt(state: BlendState, request: int, sign: float) -> None:
    """Enter, or take out, what a long request adds to the variance."""
    offset = _offset(state, request)
    for slot, weight in ((state.bucket[request, 2], sign), (state.bucket[request, 0], -sign)):
        unsure = state.unsure[slot]
        unsure.count += weight
        unsure.offset += weight * offset
        unsure.square += weight * offset * offset


@kernel
def believe(state: BlendState, request: int) -> None:
    """Enter a long request into the bucket of its predicted end, to stay until then."""
    left = max(1.0, state.output_tokens[request] - state.generated[request])
    slot = _slot(state, state.now[0].clock + left)
    state.belief_counts[slot] += 1.0
    state.belief_offsets[slot] += _offset(state, request)


@kernel
def project_again(state: BlendState) -> None:
    """Enter all running long requests afresh, as time has passed the end of a bucket."""
    now = state.now[0]
    current = int(now.clock) // state.parameters.bucket_steps
    for bucket in range(now.bucket, current):
        state.belief_counts[bucket % len(state.counts)] = 0.0
        state.belief_offsets[bucket % len(state.counts)] = 0.0
    now.bucket = current
    state.counts[:] = 0.0
    state.offsets[:] = 0.0
    for slot in range(len(state.unsure)):
        unsure = state.unsure[slot]
        unsure.count, unsure.offset, unsure.square = 0.0, 0.0, 0.0
    now.blocked = False
    learn(state)
    for position in range(now.long_running):
        request = state.long_running[position]
        project(state, request)
        expect_reads(state, request)


@kernel
def strike(state: BlendState, request: int) -> None:
    """Take a long request that no longer runs out of the buckets of its likely ends."""
    for third in range(QUANTILES):
        slot = state.bucket[request, third]
        state.counts[slot] -= 1.0 / QUANTILES
        state.offsets[slot] -= _offset(state, request) / QUANTILES
    _doubt(state, request, -1.0)


@kernel
def _slot(state: BlendState, step: float) -> int:
    """Where the bucket of a step stands; what lies too far ahead goes to the last one."""
    bucket = int(step // state.parameters.bucket_steps)
    return min(bucket, state.now[0].bucket + len(state.counts) - 1) % len(state.counts)


@kernel
def _offset(state: BlendState, request: int) -> float:
    return state.new_prompt_tokens[request] + state.generated[request] - state.started[request]
