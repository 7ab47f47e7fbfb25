"""The calendar of likely ends: how many KV tokens long requests will hold, and when.

A request is entered by the bucket of steps in which each of its outcomes ends, as a count and an
offset (what it holds at its start - step of admission), in equal parts. What all are expected to
hold at a time tau is then offset + count * tau over the buckets that end later, whatever the number
of requests. Where a token takes more or less than one slot, both are multiples of that.
Outcomes that a request has already outlived are struck out.
"""

from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.learning import (
    OUTLIVING,
    elapsed_steps,
    expect_reads,
    first_possible,
    learn,
    outcome,
)
from blendplan.policy.blend.state import BlendState


@kernel
def projected_peak(state: BlendState, request: int) -> float:
    """Most KV tokens that long requests are expected to hold while one more, admitted now, runs."""
    now = state.now[0]
    width = state.parameters.bucket_steps
    buckets, number = len(state.counts), state.outcomes.shape[1]
    clock, current = now.clock, now.bucket
    growth = state.parameters.growth
    longest = outcome(state, request, number - 1)
    count = offset = peak = 0.0
    alive = 0
    for bucket in range(current + buckets - 1, current - 1, -1):
        slot = bucket % buckets
        count += state.counts[slot]
        offset += state.offsets[slot]
        start = max(clock, bucket * float(width))
        if start > clock + longest:
            # It is gone by then: what others hold is not for it to answer for.
            continue
        end = max(clock, (bucket + 1.0) * width)
        # The new request ends within a bucket at its own time, all others at the bucket's end.
        while alive < number and start <= clock + outcome(state, request, number - 1 - alive):
            alive += 1
        grown = min(end - clock, max(start - clock, longest))
        own = state.held_tokens[request] + growth * grown
        peak = max(peak, offset + count * end + own * alive / number)
    return peak


@kernel
def project(state: BlendState, request: int) -> None:
    """Enter a long request into the buckets of its likely ends."""
    elapsed, number = elapsed_steps(state, request), state.outcomes.shape[1]
    first = first_possible(state, request, elapsed)
    # One that has outlived all of its outcomes still has an end.
    state.first[request] = min(first, number - 1)
    for place in range(state.first[request], number):
        length = outcome(state, request, place) if first < number else OUTLIVING * elapsed + 1.0
        state.slot[request, place] = _slot(state, state.now[0].clock + length - elapsed)
    _enter(state, request, 1.0)


@kernel
def strike(state: BlendState, request: int) -> None:
    """Take a long request that no longer runs out of the buckets of its likely ends."""
    _enter(state, request, -1.0)


@kernel
def _enter(state: BlendState, request: int, sign: float) -> None:
    first, number = state.first[request], state.outcomes.shape[1]
    weight, growth = sign / (number - first), state.parameters.growth
    held = state.held_tokens[request] + growth * state.generated[request]
    held -= growth * state.started[request]
    for place in range(first, number):
        slot = state.slot[request, place]
        state.counts[slot] += weight * growth
        state.offsets[slot] += weight * held


@kernel
def project_again(state: BlendState) -> None:
    """Enter all running long requests afresh, as time has passed the end of a bucket."""
    now = state.now[0]
    now.bucket = int(now.clock) // state.parameters.bucket_steps
    state.counts[:] = 0.0
    state.offsets[:] = 0.0
    now.blocked = False
    learn(state)
    for position in range(now.long_running):
        request = state.long_running[position]
        project(state, request)
        expect_reads(state, request)


@kernel
def _slot(state: BlendState, step: float) -> int:
    """Where the bucket of a step stands; what lies too far ahead goes to the last one."""
    bucket = int(step // state.parameters.bucket_steps)
    return min(bucket, state.now[0].bucket + len(state.counts) - 1) % len(state.counts)
