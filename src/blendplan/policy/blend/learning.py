"""What running and finished requests teach about the predictions of all others.

A length is believed to be log-normal around its prediction. How far such beliefs are off is learned
per cohort, the requests with one and the same prediction, by expectation maximisation: a cohort
of which little is known relies on all cohorts together, and those on the predictions. Requests that
still run count with what is to be expected of them given how long they have run, because those that
have finished are the short ones.
"""

import numpy as np

from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.normal import normal_hazard, normal_share
from blendplan.policy.blend.state import BlendState
from blendplan.policy.known import MOST_SPREAD

# Spread of a prediction's logarithm under which it is taken at its word.
CERTAIN = 0.01
# The next three were chosen on the paper's four workloads, where predictions are the mean of a
# source or off by log-normal noise (benchmarks/paper.py goals).
# Observations that the belief without them counts for.
PRIOR_COUNT = 4.0
# Shift and width stay within these, in units of the predicted spread.
MOST_SHIFT = 3.0
LEAST_WIDTH = 0.2


@kernel
def belief(state: BlendState, request: int) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the length that a request will reach."""
    output, spread = state.output_tokens[request], state.spread[request]
    if spread < CERTAIN:
        # It claims to be known. Such claims are trusted until they turn out wrong.
        now = state.now[0]
        error = np.sqrt(now.known_error_squares / (now.known_seen + PRIOR_COUNT))
        error = min(error, MOST_SPREAD)
        return np.log(output) - error * error / 2, error
    middle = np.log(output) - spread * spread / 2
    cohort = state.learned[state.cohort[request]]
    return middle + cohort.shift * spread, min(MOST_SPREAD, cohort.width * spread)


@kernel
def elapsed_steps(state: BlendState, request: int) -> float:
    """Tokens that a running request has generated, give or take its prefill."""
    return state.now[0].clock - state.started[request] + state.generated[request]


@kernel
def learn_from(state: BlendState, request: int, actual: float) -> None:
    """Note how far the prediction of a finished request was off."""
    if state.spread[request] < CERTAIN:
        now = state.now[0]
        error = np.log(actual / state.output_tokens[request])
        now.known_seen += 1
        now.known_error_squares += error * error
        return
    off = _standardised(state, request, actual)
    cohort = state.cohort[request]
    for row in range(0, cohort + 1, max(1, cohort)):
        learned = state.learned[row]
        learned.seen += 1.0
        learned.seen_sum += off
        learned.seen_squares += off * off


@kernel
def _standardised(state: BlendState, request: int, length: float) -> float:
    """A length as a number of predicted spreads above the middle of its prediction."""
    expected, spread = state.output_tokens[request], state.spread[request]
    return (np.log(length / expected) + spread * spread / 2) / spread


@kernel
def learn(state: BlendState) -> None:
    """One step of expectation maximisation, over all that has finished or runs."""
    learned = state.learned
    counts = np.empty(len(learned))
    sums = np.empty(len(learned))
    squares = np.empty(len(learned))
    for row in range(len(learned)):
        counts[row] = learned[row].seen
        sums[row] = learned[row].seen_sum
        squares[row] = learned[row].seen_squares
    for position in range(state.now[0].long_running):
        request = state.long_running[position]
        elapsed = elapsed_steps(state, request)
        if state.spread[request] < CERTAIN or elapsed < 1.0:
            continue
        cohort = state.cohort[request]
        shift, width = learned[cohort].shift, learned[cohort].width
        passed = (_standardised(state, request, elapsed) - shift) / width
        hazard = normal_hazard(passed)
        expected = shift + width * hazard
        variance = max(0.0, width**2 * (1.0 + passed * hazard - hazard**2))
        for row in range(0, cohort + 1, max(1, cohort)):
            counts[row] += 1.0
            sums[row] += expected
            squares[row] += expected**2 + variance
    shift, width = 0.0, 1.0
    for row in range(len(learned)):
        count = counts[row] + PRIOR_COUNT
        mean = (sums[row] + PRIOR_COUNT * shift) / count
        square = (squares[row] + PRIOR_COUNT * (width**2 + shift**2)) / count
        learned[row].shift = min(MOST_SHIFT, max(-MOST_SHIFT, mean))
        learned[row].width = max(LEAST_WIDTH, np.sqrt(max(0.0, square - mean * mean)))
        if row == 0:
            # What every other cohort leans on.
            shift, width = learned[0].shift, learned[0].width


@kernel
def expect_reads(state: BlendState, request: int) -> None:
    """Bring up to date what a running long request reads in all, given how long it has run."""
    elapsed = elapsed_steps(state, request)
    middle, spread = belief(state, request)
    if spread < CERTAIN:
        mean = max(state.output_tokens[request], elapsed)
        square = mean * mean
    else:
        mean = np.exp(middle + spread * spread / 2)
        square = mean * mean * np.exp(spread * spread)
        if elapsed > 0.0:
            # Moments of a log-normal length that is known to exceed the elapsed one.
            passed = (np.log(elapsed) - middle) / spread
            left = normal_share(-passed)
            if left > 1e-6:
                mean *= normal_share(spread - passed) / left
                square *= normal_share(2.0 * spread - passed) / left
            mean = max(mean, elapsed)
            square = max(square, elapsed * elapsed)
        most = state.parameters.kv_tokens
        mean, square = min(mean, most), min(square, most * most)
    reads = state.prompt_tokens[request] * mean + square / 2
    side = int(state.memory_side[request])
    state.now[0].reads_likely[side] += reads - state.likely_reads[request]
    state.likely_reads[request] = reads


@kernel
def predicted_reads(state: BlendState, request: int) -> float:
    """KV tokens that a request was expected to read before it ran."""
    output = state.output_tokens[request]
    square = output * output * np.exp(state.spread[request] ** 2)
    return state.prompt_tokens[request] * output + square / 2


@kernel
def actual_reads(state: BlendState, request: int, length: float) -> float:
    """KV tokens that a request has read when it has generated ``length`` tokens."""
    return length * (state.prompt_tokens[request] + length / 2)
