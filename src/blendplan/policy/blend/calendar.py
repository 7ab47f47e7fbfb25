"""The calendar of predicted ends: how many KV tokens long requests will hold, and when.

Requests are entered by the bucket of steps in which they are expected to end, as a count and a sum
of (resident prompt tokens - step of admission). What they hold at a time tau is then
offset + count * tau over all buckets that end later, whatever the number of requests.
"""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.policy.blend.learning import CERTAIN, belief, elapsed_steps, expect_reads, learn
from blendplan.policy.blend.normal import normal_quantile, normal_share
from blendplan.policy.blend.state import (
    BLOCKED,
    BUCKET,
    CLOCK,
    LONG_RUNNING,
    QUANTILES,
    BlendState,
)

# Three equally likely thirds, each by its middle.
_MIDDLES = (1.0 / 6.0, 0.5, 5.0 / 6.0)


@kernel
def projected_peak(state: BlendState, request: int, prompt: float, output: float) -> float:
    """Most KV tokens that long requests hold at a time while one more, admitted now, runs.

    Each time counts with its expectation and `caution` standard deviations, requests being
    independent. Between its first and its last likely end a request that holds h tokens adds
    2/9 h^2 to the variance.
    """
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
    unsure_count, unsure_offset, unsure_square = 0.0, 0.0, 0.0
    caution = state.parameters.caution
    for bucket in range(current + buckets - 1, current - 1, -1):
        slot = bucket % buckets
        count += state.counts[slot]
        offset += state.offsets[slot]
        unsure_count += state.unsure[slot, 0]
        unsure_offset += state.unsure[slot, 1]
        unsure_square += state.unsure[slot, 2]
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
def likely_length(
    state: BlendState, request: int, output: float, elapsed: float, third: int
) -> float:
    """Output length that a request reaches in the short, middle or long third of cases.

    The length is taken as log-normal around its expectation, given that it exceeds ``elapsed``.
    """
    middle, spread = belief(state, request, output)
    if spread < CERTAIN:
        # Known. Where it is outlived all the same: the longer it has run, the longer it will.
        return output if output > elapsed else 1.5 * elapsed + 1.0
    passed = 0.0
    if elapsed > 0.0:
        passed = normal_share((np.log(elapsed) - middle) / spread)
    share = min(0.999, passed + (1.0 - passed) * _MIDDLES[third])
    length = np.exp(middle + spread * normal_quantile(share))
    return max(elapsed + 1.0, min(length, 0.5 * state.parameters.kv_tokens))


@kernel
def project(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Enter a long request into the buckets of its likely ends."""
    clock = state.now[CLOCK]
    elapsed = elapsed_steps(state, request)
    for third in range(QUANTILES):
        left = likely_length(state, request, output[request], elapsed, third) - elapsed
        bucket = int((clock + left) // state.parameters.bucket_steps)
        slot = min(bucket, state.cursor[BUCKET] + len(state.counts) - 1) % len(state.counts)
        state.bucket[request, third] = slot
        state.counts[slot] += 1.0 / QUANTILES
        state.offsets[slot] += _offset(state, resident, request) / QUANTILES
    _doubt(state, resident, request, 1.0)


@kernel
def _doubt(state: BlendState, resident: NDArray[np.float64], request: int, sign: float) -> None:
    """Enter, or take out, what a long request adds to the variance."""
    offset = _offset(state, resident, request)
    for slot, weight in ((state.bucket[request, 2], sign), (state.bucket[request, 0], -sign)):
        state.unsure[slot, 0] += weight
        state.unsure[slot, 1] += weight * offset
        state.unsure[slot, 2] += weight * offset * offset


@kernel
def believe(
    state: BlendState, resident: NDArray[np.float64], output: NDArray[np.float64], request: int
) -> None:
    """Enter a long request into the bucket of its predicted end, to stay until then."""
    end = state.now[CLOCK] + max(1.0, output[request] - state.generated[request])
    bucket = int(end // state.parameters.bucket_steps)
    slot = min(bucket, state.cursor[BUCKET] + len(state.counts) - 1) % len(state.counts)
    state.belief_counts[slot] += 1.0
    state.belief_offsets[slot] += _offset(state, resident, request)


@kernel
def project_again(
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
    state.unsure[:] = 0.0
    state.now[BLOCKED] = 0.0
    learn(state, output)
    for position in range(state.cursor[LONG_RUNNING]):
        request = state.long_running[position]
        project(state, resident, output, request)
        expect_reads(state, request, output[request])


@kernel
def _offset(state: BlendState, resident: NDArray[np.float64], request: int) -> float:
    return resident[request] + state.generated[request] - state.started[request]


@kernel
def strike(state: BlendState, resident: NDArray[np.float64], request: int) -> None:
    """Take a long request that no longer runs out of the buckets of its likely ends."""
    for third in range(QUANTILES):
        slot = state.bucket[request, third]
        state.counts[slot] -= 1.0 / QUANTILES
        state.offsets[slot] -= _offset(state, resident, request) / QUANTILES
    _doubt(state, resident, request, -1.0)
