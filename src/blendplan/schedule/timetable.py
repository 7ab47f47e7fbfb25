"""How `blend` starts: which request goes to which side, and when the memory-heavy ones begin."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.step import StepTable
from blendplan.schedule.blend import (
    BUCKETS,
    NOW,
    QUANTILES,
    READS_LEFT,
    TOKENS_LEFT,
    BlendParameters,
    BlendState,
)
from blendplan.schedule.settings import EngineSettings

if TYPE_CHECKING:
    from blendplan.schedule.policies import PolicyInput

# Classes of output length that are spread over the run each by itself.
STRATA = 16
# Standard normal quantile: one prediction in ten is later than this many spreads.
Z90 = 1.2816
# Spread of a prediction's logarithm up to which it is taken at its word.
SURE = 0.3


@dataclass(frozen=True)
class BlendOptions:
    """What of `blend` may be tuned.

    Attributes:
        boundary: requests of a density under this multiple of the root's are memory-heavy.
        memory_cap: share of the KV cache that the projected peak may reach when a memory-heavy
            request is admitted.
        compute_cap: the same for a compute-heavy one.
        reserve: KV tokens kept for the compute side, as a multiple of what its flow holds on
            average.
        stagger: 1 spreads the starts of memory-heavy requests over the whole run, 0 starts them as
            soon as they fit.
        order: ``blend``, or ``dfs`` or ``random`` for a plain queue where nothing is to be gained.
    """

    boundary: float = 1.0
    memory_cap: float = 0.98
    compute_cap: float = 0.99
    reserve: float = 1.5
    stagger: float = 1.0
    order: str = "blend"


class StepPrices(NamedTuple):
    """What a policy needs to know of the price of a step.

    Attributes:
        token_s: seconds of compute per token in a well-filled step.
        read_s: seconds per KV token read.
        least_tokens: tokens that a step needs for its compute time to be worth its weights.
    """

    token_s: float
    read_s: float
    least_tokens: int


class Arrangement(NamedTuple):
    """The two queues of `blend`.

    Attributes:
        compute_order, memory_order: requests of each side in order of admission; int64.
        start_step: planned step of admission along ``memory_order``, ascending; float64.
    """

    compute_order: NDArray[np.int64]
    memory_order: NDArray[np.int64]
    start_step: NDArray[np.float64]


def step_prices(table: StepTable) -> StepPrices:
    """Sum up a step table for a policy.

    A step counts as well filled when a token costs little more than in the best step: 15 % where
    the rest of the step overlaps with it, 1 % where nothing does.
    """
    tokens = np.arange(1, len(table.linear_s))
    per_token = table.linear_s[1:] / tokens
    best = float(per_token.min())
    tolerance = 1.01 if table.overlap == 1.0 else 1.15
    least = int(tokens[np.argmax(per_token <= tolerance * best)])
    return StepPrices(best, float(table.decode_attention[0]), least)


def arrange(columns: "PolicyInput", settings: EngineSettings, options: BlendOptions) -> Arrangement:
    """Sort requests into the two queues, and set the timetable of the memory-heavy ones.

    A family goes to one side as a whole: its common prefix is worth more than a finer balance.
    """
    order = columns.depth_first
    reads = columns.output_tokens * (columns.prompt_tokens + columns.output_tokens / 2)
    family = columns.family
    density = np.bincount(family, columns.density * reads) / np.bincount(family, reads)
    memory = (density < options.boundary * max(1.0, columns.root_density))[family]
    parameters = blend_parameters(columns, memory, settings, options)
    memory_order, start_step = timetable(order[memory[order]], columns, parameters.steps)
    return Arrangement(order[~memory[order]], memory_order, options.stagger * start_step)


def timetable(
    requests: NDArray[np.int64], columns: "PolicyInput", steps: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Requests in the order of their planned start, and that start in steps.

    Every class of output length is spread evenly, in the order given, over the steps in which its
    requests can start and still end within ``steps``: the mix of lengths stays the same, ends are
    staggered, and the longest start early enough. The members of a family start one after the
    other, as far apart as their share of the work asks for.

    Args:
        requests: memory-heavy requests in depth-first order, so that families are runs.
        columns: what is known of all requests.
        steps: planned length of the run.
    """
    outputs = columns.output_tokens[requests]
    spread = columns.output_spread[requests]
    late = outputs * np.exp(Z90 * spread - spread**2 / 2)
    first = np.flatnonzero(np.diff(columns.family[requests], prepend=-1))
    member = np.repeat(np.arange(len(first)), np.diff(first, append=len(requests)))
    work = outputs * (columns.new_prompt_tokens[requests] + outputs / 2)
    family_work = np.bincount(member, work)
    size = np.bincount(member)
    span = np.where(size > 1, steps * family_work / max(1.0, family_work.sum()), 0.0)
    length = np.maximum.reduceat(late, first) if len(first) else late
    fraction = _spread_evenly(length, np.bincount(member, outputs).astype(np.float64))
    begin = fraction * np.maximum(0.0, steps - length - span)
    start = begin[member] + span[member] * _rank_share(member, first, size)
    order = np.argsort(start, kind="stable")
    return requests[order], start[order]


def _rank_share(
    member: NDArray[np.int64], first: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Position of each request within its family, from 0 to just under 1."""
    return (np.arange(len(member)) - first[member]) / size[member]


def _spread_evenly(length: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position in [0, 1) of each item, even within each of `STRATA` classes of length.

    Classes hold equal shares of the weight. Within a class items keep their order; classes are out
    of phase, so that their items do not coincide.
    """
    by_length = np.argsort(length, kind="stable")
    ascending = length[by_length]
    share = np.concatenate([[0.0], np.cumsum(weight[by_length])]) / max(1.0, weight.sum())
    # Equal lengths are of one class.
    shorter = share[np.searchsorted(ascending, length, side="left")]
    stratum = np.minimum(STRATA - 1, shorter * STRATA).astype(np.int64)
    fraction = np.empty(len(length))
    for number in range(STRATA):
        mine = np.flatnonzero(stratum == number)
        phase = (number + 0.5) / STRATA
        fraction[mine] = (np.arange(len(mine)) + phase) / max(1, len(mine))
    return fraction


def blend_parameters(
    columns: "PolicyInput",
    memory: NDArray[np.bool_],
    settings: EngineSettings,
    options: BlendOptions,
) -> BlendParameters:
    """Constants of a run, from the totals of both sides.

    Args:
        columns: n requests.
        memory: which of them are memory-heavy; bool [n].
        settings: limits of the engine.
        options: tuning.
    """
    prices = columns.prices
    outputs, held = columns.output_tokens, columns.new_prompt_tokens + columns.output_tokens
    kv_tokens = float(settings.kv_tokens)
    tokens = float(held.sum())
    request_reads = outputs * (columns.prompt_tokens + outputs / 2)
    reads = (float(request_reads[~memory].sum()), float(request_reads[memory].sum()))
    # KV tokens times steps that a request occupies; a compute-heavy one also while it is prefilled.
    area = columns.new_prompt_tokens * outputs + outputs**2 / 2
    compute_area = float((held * (outputs + 2))[~memory].sum())
    memory_area = float(area[memory].sum())
    # With a density so high that full steps of prefill cannot keep up with a full KV cache, memory
    # work is stretched over the run instead.
    balanced = np.inf
    if tokens > 0:
        full_step = settings.max_num_batched_tokens / tokens
        balanced = full_step * (memory_area + compute_area)
    ramp = float((area * outputs)[memory].sum()) / max(memory_area, 1.0)
    longest = float(outputs.max(initial=1.0))
    sure = float(outputs[columns.output_spread < SURE].max(initial=1.0))
    least_steps = max(sure, tokens / settings.max_num_batched_tokens)
    largest = float(held[~memory].max(initial=0.0))
    reserve, steps = 0.0, least_steps
    for _ in range(4):
        steady = max(0.1 * kv_tokens, min(options.memory_cap * kv_tokens - reserve, balanced))
        # Where few requests hold most of the area, the ramps take no more than the rest.
        full = memory_area / steady
        steps = max(least_steps, full + min(ramp, full))
        reserve = min(0.5 * kv_tokens, options.reserve * compute_area / steps + largest)
    # Prefill is spread over the run, but no prompt may take more than 1 % of it.
    patient = max(tokens, 100.0 * float(columns.new_prompt_tokens.max(initial=0.0))) / steps
    least_tokens = min(prices.least_tokens, int(np.ceil(patient)))
    if steps <= tokens / settings.max_num_batched_tokens:
        # Full steps of prefill last as long as the memory work: there is nothing to hold back.
        least_tokens = settings.max_num_batched_tokens
    return BlendParameters(
        kv_tokens=kv_tokens,
        memory_cap=options.memory_cap,
        compute_cap=options.compute_cap,
        compute_reserve=reserve,
        bucket_steps=max(1, int(np.ceil(longest / BUCKETS))),
        steps=steps,
        tokens=tokens,
        reads=reads,
        least_tokens=least_tokens,
    )


def blend_state(
    columns: "PolicyInput",
    arrangement: Arrangement,
    settings: EngineSettings,
    options: BlendOptions,
) -> BlendState:
    """The state of `blend` over n requests before the first step."""
    n = len(columns)
    memory = np.zeros(n, dtype=np.bool_)
    memory[arrangement.memory_order] = True
    parameters = blend_parameters(columns, memory, settings, options)
    now = np.zeros(NOW)
    now[TOKENS_LEFT] = parameters.tokens
    now[READS_LEFT : READS_LEFT + 2] = parameters.reads
    return BlendState(
        parameters=parameters,
        compute_order=arrangement.compute_order,
        memory_order=arrangement.memory_order,
        start_step=arrangement.start_step,
        prompt_tokens=columns.prompt_tokens,
        memory_side=memory,
        started=np.zeros(n, dtype=np.int64),
        generated=np.zeros(n, dtype=np.int64),
        spread=columns.output_spread,
        bucket=np.zeros((n, QUANTILES), dtype=np.int64),
        long_running=np.zeros(n, dtype=np.int64),
        long_position=np.zeros(n, dtype=np.int64),
        counts=np.zeros(2 * BUCKETS),
        offsets=np.zeros(2 * BUCKETS),
        belief_counts=np.zeros(2 * BUCKETS),
        belief_offsets=np.zeros(2 * BUCKETS),
        cursor=np.zeros(4, dtype=np.int64),
        now=now,
    )


def no_blend_state() -> BlendState:
    """A placeholder for the other policies: compiled code knows one type of state."""
    rows, values = np.empty(0, dtype=np.int64), np.empty(0)
    return BlendState(
        parameters=BlendParameters(0.0, 0.0, 0.0, 0.0, 1, 0.0, 0.0, (0.0, 0.0), 0),
        compute_order=rows,
        memory_order=rows,
        start_step=values,
        prompt_tokens=values,
        memory_side=np.empty(0, dtype=np.bool_),
        started=rows,
        generated=rows,
        spread=values,
        bucket=np.empty((0, QUANTILES), dtype=np.int64),
        long_running=rows,
        long_position=rows,
        counts=values,
        offsets=values,
        belief_counts=values,
        belief_offsets=values,
        cursor=rows,
        now=values,
    )
