"""`BlendState`: what the policy `blend` knows and remembers, as arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Buckets of predicted ends: the projected peak is exact to 1/BUCKETS of the longest output.
# Chosen on the paper's four workloads (benchmarks/paper.py goals).
BUCKETS = 64

# Numbers that change from step to step; two are of both sides, compute side first.
NOW = np.dtype(
    [
        ("clock", "f8"),
        ("blocked", "?"),
        ("limit", "f8"),
        ("lost_tokens", "f8"),
        ("new_tokens", "f8"),
        ("used_tokens", "f8"),
        ("weighed", "f8"),
        ("next_compute", "i8"),
        ("next_memory", "i8"),
        ("long_running", "i8"),
        ("bucket", "i8"),
        ("running", "f8"),
        ("running_offset", "f8"),
        ("running_level", "f8"),
        ("short_tokens", "f8"),
        ("compute_tokens", "f8"),
        ("unexpected_tokens", "f8"),
        ("credit_tokens", "f8"),
        ("saved_tokens", "f8"),
        ("burst_tokens", "f8"),
        ("burst_end", "f8"),
        ("tokens_left", "f8"),
        ("reads_running", "f8"),
        ("reads_left", "f8", (2,)),
        ("reads_done", "f8", (2,)),
        ("reads_expected", "f8", (2,)),
        ("reads_likely", "f8", (2,)),
    ]
)
# How lengths of a cohort differ from predictions, in logarithms.
COHORT = np.dtype([("shift", "f8"), ("factor", "f8"), ("seen", "f8"), ("seen_sum", "f8")])


class BlendParameters(NamedTuple):
    """Constants of one run.

    Attributes:
        kv_tokens: M.
        growth: KV tokens by which what a running request holds grows per step.
        read_growth: KV tokens by which what it reads grows per step.
        most_limit: how far the share of M that the projected peak may reach can rise.
        compute_reserve: KV tokens that the flow of compute-heavy requests is expected to hold.
        bucket_steps: width of a bucket; requests with longer outputs are *long*.
        steps: planned length of the run.
        tokens: tokens to compute in the whole run, prefixes once.
        reads: KV tokens to read in the whole run, by the compute and by the memory side.
        least_tokens: tokens that a step needs for its compute time to be worth its weights.
        most_tokens: most tokens of one step.
        burst_steps: requests are admitted in one of so many steps; in every one with 1.
    """

    kv_tokens: float
    growth: float
    read_growth: float
    most_limit: float
    compute_reserve: float
    bucket_steps: int
    steps: float
    tokens: float
    reads: tuple[float, float]
    least_tokens: int
    most_tokens: int
    burst_steps: int


class BlendState(NamedTuple):
    """State of the policy over n requests.

    Attributes:
        parameters: constants.
        compute_order, memory_order: the two queues; int64.
        prompt_tokens: prompt length, which every decode step reads; float64 [n].
        new_prompt_tokens: prompt tokens to compute, the request's share of a common prefix counted;
            float64 [n].
        held_tokens: KV tokens that it holds beside what grows with its output; float64 [n].
        level_reads: KV tokens that each of its steps reads beside what grows; float64 [n].
        output_tokens: expected output length; float64 [n].
        outcomes: equally likely output lengths, rising; float64 [n, OUTCOMES].
        middle: mean of their logarithms; float64 [n].
        reads: KV tokens that each is expected to read while it decodes; float64 [n].
        memory_side: True for requests of ``memory_order``; bool [n].
        started: step of admission; int64 [n].
        generated: tokens generated before a preemption; int64 [n].
        slot, first: where in the calendar the ends of a running long request stand, one for each
            of its outcomes from ``first`` on; int64 [n, OUTCOMES] and [n].
        long_running, long_position: the running long requests and where each stands there;
            int64 [n].
        counts, offsets: per bucket, number of requests that end in it times ``growth``, and sum of
            what they hold at a clock of 0; float64 [BUCKETS * 2].
        likely_reads: KV tokens that a request that has run is expected to read in all; float64 [n].
        cohort: number of the requests with predictions about as long; int64 [n].
        size_below, size_above: next efficient step at or under, and at or over, each number of
            tokens; int64 [most tokens of a step + 1].
        learned: per cohort, how the logarithms of its lengths differ from the predicted ones, row
            0 over all: ``shift`` as it is believed to be and ``factor``, its exponential; and of
            those that have finished the number and the sum; COHORT [COHORTS].
        now: one record of NOW. ``clock`` in steps; ``blocked`` while the next memory-heavy request
            is known not to fit; ``limit``, share of M that the projected peak may reach;
            ``lost_tokens`` to recompute after preemptions, ``new_tokens`` computed and
            ``used_tokens``, the sum of what was in use, since ``weighed``, the clock when the limit
            was looked at last; ``next_compute`` and ``next_memory``, places in the queues;
            ``long_running``, how many there are;
            ``bucket`` of the clock; ``running`` requests, ``running_offset``, the sum of their
            prompts less their steps of admission, and ``running_level``, that of their
            ``level_reads``; ``short_tokens`` and ``compute_tokens``, KV
            tokens that running short and compute-heavy requests hold at their ends;
            ``unexpected_tokens``, KV tokens in use that no prediction accounts for;
            ``credit_tokens``, tokens that earlier steps were kept short of;
            ``saved_tokens``, prefill that is due since the last burst of admissions,
            ``burst_tokens``, what is left of that for the burst of this step, and ``burst_end``,
            the clock when it ends at the latest; ``tokens_left`` to compute; ``reads_running``, KV
            tokens that running requests have read; ``reads_left`` of waiting requests,
            ``reads_done`` of finished ones, and ``reads_expected`` and ``reads_likely`` of those
            that have been admitted, by side.
    """

    parameters: BlendParameters
    compute_order: NDArray[np.int64]
    memory_order: NDArray[np.int64]
    prompt_tokens: NDArray[np.float64]
    new_prompt_tokens: NDArray[np.float64]
    held_tokens: NDArray[np.float64]
    level_reads: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    middle: NDArray[np.float64]
    reads: NDArray[np.float64]
    memory_side: NDArray[np.bool_]
    started: NDArray[np.int64]
    generated: NDArray[np.int64]
    slot: NDArray[np.int64]
    first: NDArray[np.int64]
    long_running: NDArray[np.int64]
    long_position: NDArray[np.int64]
    counts: NDArray[np.float64]
    offsets: NDArray[np.float64]
    likely_reads: NDArray[np.float64]
    cohort: NDArray[np.int64]
    size_below: NDArray[np.int64]
    size_above: NDArray[np.int64]
    learned: NDArray[np.void]
    now: NDArray[np.void]
