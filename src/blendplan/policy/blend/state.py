"""`BlendState`: what the policy `blend` knows and remembers, as arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Buckets of predicted ends: the projected peak is exact to 1/BUCKETS of the longest output.
BUCKETS = 128
# A long request is expected to end in three equally likely ways.
QUANTILES = 3
# Entries of BlendState.now.
CLOCK, TIMETABLE, SHORT_TOKENS, COMPUTE_TOKENS, READ_COUNT, READ_OFFSET = range(6)
TOKENS_LEFT, BLOCKED, UNEXPECTED, ERRORS, ERROR_SQUARES, READS_RUNNING = range(6, 12)
# Two entries each, compute side first.
READS_LEFT, READS_DONE, READS_EXPECTED, LIKELY_READS = 12, 14, 16, 18
CREDIT = 20
NOW = 21
# Entries of BlendState.learned.
SHIFT, WIDTH, SEEN, SEEN_SUM, SEEN_SQUARES = range(5)
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
        caution: standard deviations of the projected KV tokens that are kept free.
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
    caution: float


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
        unsure: per bucket, of the requests whose first likely end lies before it and the last one
            not: their number, and the sums of the offset and of its square, as differences to the
            bucket before; float64 [BUCKETS * 2, 3].
        likely_reads: KV tokens that a request that has run is expected to read in all; float64 [n].
        cohort: number of the requests with the same prediction, 0 for none; int64 [n].
        size_below, size_above: next efficient step at or under, and at or over, each number of
            tokens; int64 [most tokens of a step + 1].
        learned: per cohort, how its lengths differ from the prediction, row 0 over all: SHIFT and
            WIDTH of their distribution in units of the predicted spread, and of those that have
            finished the number, the sum and the sum of squares; float64 [COHORTS, 5].
        cursor: NEXT_COMPUTE, NEXT_MEMORY, LONG_RUNNING, BUCKET; int64 [4].
        now: CLOCK and TIMETABLE in steps; SHORT_TOKENS and COMPUTE_TOKENS, KV tokens that running
            short and compute-heavy requests hold at their ends; READ_COUNT and READ_OFFSET, running
            requests and the sum of their prompts less their steps of admission; TOKENS_LEFT and
            READS_LEFT; BLOCKED, 1 while the next memory-heavy request is known not to fit;
            UNEXPECTED, KV tokens in use that no prediction accounts for; ERRORS and ERROR_SQUARES,
            number and sum of squares of the logarithm of actual over predicted output length;
            CREDIT, tokens that earlier steps were kept short of what they should have had;
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
    unsure: NDArray[np.float64]
    likely_reads: NDArray[np.float64]
    cohort: NDArray[np.int64]
    size_below: NDArray[np.int64]
    size_above: NDArray[np.int64]
    learned: NDArray[np.float64]
    cursor: NDArray[np.int64]
    now: NDArray[np.float64]
