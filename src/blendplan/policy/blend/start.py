"""`blend_state`: the policy `blend` before the first step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.reach import growing_share
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.scalars import scalars
from blendplan.policy.blend.state import (
    BUCKETS,
    COHORT,
    NOW,
    BlendParameters,
    BlendState,
)
from blendplan.policy.known import PolicyInput

# Cohorts; the last one has all the longest predictions.
COHORTS = 40


@dataclass(frozen=True)
class BlendOptions:
    """What of `blend` may be tuned.

    The defaults were chosen on the tuning half of the mixtures (benchmarks/mixtures.py). The
    planner tries some others by simulation, see `Candidate`.

    Attributes:
        boundary: requests of a density under this multiple of the root's are memory-heavy. Which
            one is best differs by mixture, by up to 7 points of the share of the bound.
        limit: share of the KV cache that the projected peak may reach to begin with; it moves with
            what preempting and empty memory cost.
        most_limit: how far that share may rise. With known lengths a projection is right, and more
            than the capacity is often preempted later: 1 instead of 4 is up to 7 points better with
            outputs of tens of thousands of tokens, and up to 20 worse with prompts as long as a
            good part of the cache.
        reserve: KV tokens kept for the compute side, as a multiple of what its flow holds on
            average.
        families: keep requests together whose common prefix would cost much to compute again;
            else each goes where it balances best.
        order: ``blend``, or ``dfs``, ``fcfs`` or ``random`` for a plain queue where nothing is to
            be gained.
        burst_steps: requests are admitted in one of so many steps, and the prefill that is due is
            saved up for it, where a step costs more for having prompt tokens at all.
    """

    boundary: float = 1.0
    limit: float = 1.0
    most_limit: float = 4.0
    reserve: float = 1.0
    families: bool = True
    order: str = "blend"
    burst_steps: int = 1


class Arrangement(NamedTuple):
    """The two queues of `blend`.

    Attributes:
        compute_order, memory_order: requests of each side in order of admission; int64.
    """

    compute_order: NDArray[np.int64]
    memory_order: NDArray[np.int64]


def blend_parameters(
    columns: PolicyInput,
    memory: NDArray[np.bool_],
    limits: EngineLimits,
    options: BlendOptions,
) -> BlendParameters:
    """Constants of a run, from the totals of both sides.

    Args:
        columns: n requests.
        memory: which of them are memory-heavy; bool [n].
        limits: limits of the engine.
        options: tuning.
    """
    prices = columns.prices
    outputs, growth = columns.output_tokens, columns.holding.growth
    held = columns.held_tokens + growth * outputs
    kv_tokens = float(limits.kv_tokens)
    tokens = float((columns.new_prompt_tokens + outputs).sum())
    request_reads = columns.reads
    reads = (float(request_reads[~memory].sum()), float(request_reads[memory].sum()))
    # KV tokens times steps that a request occupies; a compute-heavy one also while it is prefilled.
    area = columns.held_tokens * outputs + growth * columns.output_squares / 2
    short_area = columns.held_tokens * outputs + growth * columns.output_squares + 2 * held
    compute_area = float(short_area[~memory].sum())
    memory_area = float(area[memory].sum())
    # With a density so high that full steps of prefill cannot keep up with a full KV cache, memory
    # work is stretched over the run instead.
    balanced = np.inf
    if tokens > 0:
        full_step = limits.max_num_batched_tokens / tokens
        balanced = full_step * (memory_area + compute_area)
    ramp = float((area * outputs)[memory].sum()) / max(memory_area, 1.0)
    longest = _long_output(columns)
    sure = float(outputs[~columns.unsure].max(initial=1.0))
    least_steps = max(sure, tokens / limits.max_num_batched_tokens)
    largest = float(held[~memory].max(initial=0.0))
    reserve, steps = 0.0, least_steps
    for _ in range(4):
        steady = max(0.1 * kv_tokens, min(options.limit * kv_tokens - reserve, balanced))
        # Where few requests hold most of the area, the ramps take no more than the rest.
        full = memory_area / steady
        steps = max(least_steps, full + min(ramp, full))
        reserve = min(0.5 * kv_tokens, options.reserve * compute_area / steps + largest)
    # Prefill is spread over the run, but no prompt may take more than 1 % of it.
    patient = max(tokens, 100.0 * float(columns.new_prompt_tokens.max(initial=0.0))) / steps
    least_tokens = min(prices.least_tokens, int(np.ceil(patient)))
    if steps <= tokens / limits.max_num_batched_tokens:
        # Full steps of prefill last as long as the memory work: there is nothing to hold back.
        least_tokens = limits.max_num_batched_tokens
    return BlendParameters(
        kv_tokens=kv_tokens,
        growth=growth,
        read_growth=growing_share(columns.reach),
        most_limit=max(options.limit, options.most_limit),
        compute_reserve=reserve,
        bucket_steps=max(1, int(np.ceil(longest / BUCKETS))),
        steps=steps,
        tokens=tokens,
        reads=reads,
        least_tokens=least_tokens,
        most_tokens=limits.max_num_batched_tokens,
        burst_steps=options.burst_steps,
    )


def _long_output(columns: PolicyInput) -> float:
    """Output length beyond which lies one in a hundred of all expected output tokens."""
    # In steps of 1 %, so that no million numbers are sorted.
    place = np.ceil(np.log(np.maximum(1.0, columns.outcomes.ravel())) / np.log(1.01)).astype(int)
    tokens = np.cumsum(np.bincount(place, columns.outcomes.ravel(), minlength=1))
    return float(1.01 ** np.searchsorted(tokens, 0.99 * tokens[-1]))


def blend_state(
    columns: PolicyInput,
    arrangement: Arrangement,
    limits: EngineLimits,
    options: BlendOptions,
) -> BlendState:
    """The state of `blend` over n requests before the first step."""
    n = len(columns)
    memory = np.zeros(n, dtype=np.bool_)
    memory[arrangement.memory_order] = True
    parameters = blend_parameters(columns, memory, limits, options)
    below, above = efficient_sizes(columns.prices.efficient_tokens, limits.max_num_batched_tokens)
    learned = np.zeros(COHORTS, COHORT).view(np.recarray)
    learned.factor[:] = 1.0
    return BlendState(
        parameters=parameters,
        compute_order=arrangement.compute_order,
        memory_order=arrangement.memory_order,
        prompt_tokens=columns.prompt_tokens,
        new_prompt_tokens=columns.new_prompt_tokens,
        held_tokens=columns.held_tokens,
        level_reads=columns.level_reads,
        output_tokens=columns.output_tokens,
        outcomes=columns.outcomes,
        middle=np.log(columns.outcomes).mean(axis=1),
        reads=columns.reads,
        memory_side=memory,
        started=np.zeros(n, dtype=np.int64),
        generated=np.zeros(n, dtype=np.int64),
        slot=np.zeros(columns.outcomes.shape, dtype=np.int64),
        first=np.zeros(n, dtype=np.int64),
        long_running=np.zeros(n, dtype=np.int64),
        long_position=np.zeros(n, dtype=np.int64),
        counts=np.zeros(2 * BUCKETS),
        offsets=np.zeros(2 * BUCKETS),
        likely_reads=np.zeros(n),
        cohort=cohorts(columns),
        size_below=below,
        size_above=above,
        learned=learned,
        now=scalars(
            NOW,
            limit=options.limit,
            tokens_left=parameters.tokens,
            reads_left=parameters.reads,
        ),
    )


def efficient_sizes(
    ranges: Sequence[Sequence[int]], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each size from 0 to ``most``, the next efficient one below and above; int64 [most + 1].

    The size itself where it is efficient, or where there is none on that side.
    """
    sizes = np.arange(most + 1)
    efficient = np.zeros(most + 1, dtype=np.bool_)
    for first, last in ranges:
        efficient[first : last + 1] = True
    if not ranges:
        efficient[:] = True
    below = np.maximum.accumulate(np.where(efficient, sizes, -1))
    above = np.minimum.accumulate(np.where(efficient, sizes, most + 1)[::-1])[::-1]
    known = (below >= 0) & (above <= most)
    return np.where(known, below, sizes), np.where(known, above, sizes)


def cohorts(columns: PolicyInput) -> NDArray[np.int64]:
    """Number of each request's cohort, from 1; int64 [n].

    Requests whose predictions are about as long, to half a power of two, are most of the same kind:
    how long some of them turn out to be tells of the others.
    """
    class_of = np.floor(2.0 * np.log2(np.maximum(1.0, columns.output_tokens))).astype(np.int64)
    return 1 + np.minimum(class_of, COHORTS - 2)
