"""What running and finished requests teach about the predictions of all others.

By how much lengths differ from their predictions is learned as a factor per cohort, the requests
whose predictions are about as long, by expectation maximisation: a cohort of which little is known
relies on all cohorts together, and those on the predictions. Requests that still run count with
what is to be expected of them given how long they have run, because those that have finished are
the short ones.
"""

import numpy as np

from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.state import BlendState

# Observations that the belief without them counts for.
PRIOR_COUNT = 8.0
# Logarithms of the factor stay within this.
MOST_SHIFT = 3.0
# By how much a request that has outlived all that was expected of it is expected to outlive that.
OUTLIVING = 1.5


@kernel
def elapsed_steps(state: BlendState, request: int) -> float:
    """Tokens that a running request has generated, give or take its prefill."""
    return state.now[0].clock - state.started[request] + state.generated[request]


@kernel
def outcome(state: BlendState, request: int, number: int) -> float:
    """One of the equally likely output lengths of a request, as far as is known by now."""
    return state.outcomes[request, number] * state.learned[state.cohort[request]].factor


@kernel
def first_possible(state: BlendState, request: int, elapsed: float) -> int:
    """The shortest outcome of a request that is longer than ``elapsed``; their number if none."""
    factor = state.learned[state.cohort[request]].factor
    number = 0
    while number < state.outcomes.shape[1] and factor * state.outcomes[request, number] <= elapsed:
        number += 1
    return number


@kernel
def learn_from(state: BlendState, request: int, actual: float) -> None:
    """Note how far the prediction of a finished request was off."""
    off = np.log(actual) - state.middle[request]
    cohort = state.cohort[request]
    for row in range(0, cohort + 1, max(1, cohort)):
        state.learned[row].seen += 1.0
        state.learned[row].seen_sum += off


@kernel
def learn(state: BlendState) -> None:
    """One step of expectation maximisation, over all that has finished or runs."""
    learned = state.learned
    counts = np.empty(len(learned))
    sums = np.empty(len(learned))
    for row in range(len(learned)):
        counts[row] = learned[row].seen
        sums[row] = learned[row].seen_sum
    for position in range(state.now[0].long_running):
        request = state.long_running[position]
        elapsed = elapsed_steps(state, request)
        if elapsed < 1.0:
            continue
        off = _expected_logarithm(state, request, elapsed) - state.middle[request]
        cohort = state.cohort[request]
        for row in range(0, cohort + 1, max(1, cohort)):
            counts[row] += 1.0
            sums[row] += off
    shift = 0.0
    for row in range(len(learned)):
        mean = (sums[row] + PRIOR_COUNT * shift) / (counts[row] + PRIOR_COUNT)
        learned[row].shift = min(MOST_SHIFT, max(-MOST_SHIFT, mean))
        learned[row].factor = np.exp(learned[row].shift)
        if row == 0:
            # What every other cohort leans on.
            shift = learned[0].shift


@kernel
def _expected_logarithm(state: BlendState, request: int, elapsed: float) -> float:
    """Of the length of a request that has generated ``elapsed`` tokens and still runs."""
    first, number = first_possible(state, request, elapsed), state.outcomes.shape[1]
    if first == number:
        return np.log(OUTLIVING * elapsed)
    total = 0.0
    for place in range(first, number):
        total += np.log(outcome(state, request, place))
    return total / (number - first)


@kernel
def expect_reads(state: BlendState, request: int) -> None:
    """Bring up to date what a running long request reads in all, given how long it has run."""
    elapsed = elapsed_steps(state, request)
    first, number = first_possible(state, request, elapsed), state.outcomes.shape[1]
    mean, square = OUTLIVING * elapsed, (OUTLIVING * elapsed) ** 2
    if first < number:
        mean = square = 0.0
        for place in range(first, number):
            length = outcome(state, request, place)
            mean += length / (number - first)
            square += length * length / (number - first)
    reads = reads_of(state, request, state.prompt_tokens[request] * mean + square / 2, mean)
    side = int(state.memory_side[request])
    state.now[0].reads_likely[side] += reads - state.likely_reads[request]
    state.likely_reads[request] = reads


@kernel
def actual_reads(state: BlendState, request: int, length: float) -> float:
    """KV tokens that a request has read when it has generated ``length`` tokens."""
    return reads_of(state, request, length * (state.prompt_tokens[request] + length / 2), length)


@kernel
def reads_of(state: BlendState, request: int, context_tokens: float, steps: float) -> float:
    """What that many steps read whose contexts have so many tokens in all."""
    return state.parameters.read_growth * context_tokens + state.level_reads[request] * steps
