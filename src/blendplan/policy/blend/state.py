"""`BlendState`: what the policy `blend` knows and remembers, as arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Buckets of predicted ends: the projected peak is exact to 1/BUCKETS of the longest output.
# Chosen on the paper's four workloads (benchmarks/paper.py goals).
BUCKETS = 128
# A long request is expected to end in three equally likely ways.
QUANTILES = 3

# Numbers that change from step to step; two are of both sides, compute side first.
NOW = np.dtype(
    [
        ("clock", "f8"),
        ("timetable", "f8"),
        ("blocked", "?"),
        ("next_compute", "i8"),
        ("next_memory", "i8"),
        ("long_running", "i8"),
        ("bucket", "i8"),
        ("running", "f8"),
        ("running_offset", "f8"),
        ("short_tokens", "f8"),
        ("compute_tokens", "f8"),
        ("unexpected_tokens", "f8"),
        ("credit_tokens", "f8"),
        ("tokens_left", "f8"),
        ("reads_running", "f8"),
        ("reads_left", "f8", (2,)),
        ("reads_done", "f8", (2,)),
        ("reads_expected", "f8", (2,)),
        ("reads_likely", "f8", (2,)),
        ("known_seen", "f8"),
        ("known_error_squares", "f8"),
    ]
)
# Sums over requests whose end is unsure.
UNSURE = np.dtype([("count", "f8"), ("offset", "f8"), ("square", "f8")])
# What a cohort's lengths are like, in units of the predicted spread.
COHORT = np.dtype(
    [("shift", "f8"), ("width", "f8"), ("seen", "f8"), ("seen_sum", "f8"), ("seen_squares", "f8")]
)


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
        most_tokens: most tokens of one step.
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
    most_tokens: int
    caution: float


class BlendState(NamedTuple):
    """State of the policy over n requests.

    Attributes:
        parameters: constants.
        compute_order, memory_order: the two queues; int64.
        start_step: timetable of ``memory_order``, ascending; float64.
        prompt_tokens: prompt length, which every decode step reads; float64 [n].
        new_prompt_tokens: prompt tokens to compute and to hold, the request's share of a common
            prefix counted; float64 [n].
        output_tokens: expected output length; float64 [n].
        spread: standard deviation of its logarithm; float64 [n].
        memory_side: True for requests of ``memory_order``; bool [n].
        started: step of admission; int64 [n].
        generated: tokens generated before a preemption; int64 [n].
        bucket: buckets that hold a long request's predicted end, one for each of `QUANTILES`;
            int64 [n, 3].
        long_running, long_position: the running long requests and where each stands there;
            int64 [n].
        counts, offsets: per bucket, number of requests that end in it, and sum of their prompt
            tokens less their step of admission; float64 [BUCKETS * 2].
        belief_counts, belief_offsets: the same, of all requests as if they ended when predicted,
            whether they have or not; float64 [BUCKETS * 2].
        unsure: per bucket, of the requests whose first likely end lies before it and the last one
            not: their number, and the sums of the offset and of its square, as differences to the
            bucket before; UNSURE [BUCKETS * 2].
        likely_reads: KV tokens that a request that has run is expected to read in all; float64 [n].
        cohort: number of the requests with the same prediction, 0 for none; int64 [n].
        size_below, size_above: next efficient step at or under, and at or over, each number of
            tokens; int64 [most tokens of a step + 1].
        learned: per cohort, how its lengths differ from the prediction, row 0 over all: ``shift``
            and ``width`` of their distribution in units of the predicted spread, and of those that
            have finished the number, the sum and the sum of squares; COHORT [COHORTS].
        now: one record of NOW. ``clock`` and ``timetable`` in steps; ``blocked`` while the next
            memory-heavy request is known not to fit; ``next_compute`` and ``next_memory``, places
            in the queues; ``long_running``, how many there are; ``bucket`` of the clock;
            ``running`` requests and ``running_offset``, the sum of their prompts less their steps
            of admission; ``short_tokens`` and ``compute_tokens``, KV tokens that running short and
            compute-heavy requests hold at their ends; ``unexpected_tokens``, KV tokens in use that
            no prediction accounts for; ``credit_tokens``, tokens that earlier steps were kept short
            of; ``tokens_left`` to compute; ``reads_running``, KV tokens that running requests have
            read; ``reads_left`` of waiting requests, ``reads_done`` of finished ones, and
            ``reads_expected`` and ``reads_likely`` of those that have been admitted, by side;
            ``known_seen`` and ``known_error_squares``, number and sum of squares of the logarithm
            of actual over stated length.
    """

    parameters: BlendParameters
    compute_order: NDArray[np.int64]
    memory_order: NDArray[np.int64]
    start_step: NDArray[np.float64]
    prompt_tokens: NDArray[np.float64]
    new_prompt_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    spread: NDArray[np.float64]
    memory_side: NDArray[np.bool_]
    started: NDArray[np.int64]
    generated: NDArray[np.int64]
    bucket: NDArray[np.int64]
    long_running: NDArray[np.int64]
    long_position: NDArray[np.int64]
    counts: NDArray[np.float64]
    offsets: NDArray[np.float64]
    belief_counts: NDArray[np.float64]
    belief_offsets: NDArray[np.float64]
    unsure: NDArray[np.void]
    likely_reads: NDArray[np.float64]
    cohort: NDArray[np.int64]
    size_below: NDArray[np.int64]
    size_above: NDArray[np.int64]
    learned: NDArray[np.void]
    now: NDArray[np.void]
