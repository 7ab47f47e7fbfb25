"""The calendar of predicted ends: how many KV tokens long requests will hold, and when.

Requests are entered by the bucket of steps in which they are expected to end, as a count and a sum
of (resident prompt tokens - step of admission). What they hold at a time tau is then
offset + count * tau over all buckets that end later, whatever the number of requests.
"""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.schedule.blend_state import (
    BLOCKED,
    BUCKET,
    CLOCK,
    ERROR_SQUARES,
    ERRORS,
    LONG_RUNNING,
    QUANTILES,
    BlendState,
)
from blendplan.schedule.normal import normal_quantile, normal_share

# Three equally likely thirds, each by its middle.
_MIDDLES = (1.0 / 6.0, 0.5, 5.0 / 6.0)


@kernel
def projected_peak(state: BlendState, request: int, prompt: float, output: float) -> float:
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
def project(
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
    state.now[BLOCKED] = 0.0
    for position in range(state.cursor[LONG_RUNNING]):
        project(state, resident, output, state.long_running[position])


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
