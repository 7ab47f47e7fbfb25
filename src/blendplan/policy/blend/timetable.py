"""`arrange`: which request goes to which side, and when the memory-heavy ones begin."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.blend.start import Arrangement, BlendOptions, blend_parameters
from blendplan.policy.known import PolicyInput

# Classes of output length, each of which is spread over the run by itself.
# Chosen on the paper's four workloads (benchmarks/paper.py goals).
STRATA = 16


def arrange(columns: PolicyInput, limits: EngineLimits, options: BlendOptions) -> Arrangement:
    """Sort requests into the two queues, and set the timetable of the memory-heavy ones.

    A family goes to one side as a whole: its common prefix is worth more than a finer balance.
    """
    order = columns.depth_first
    if not options.families:
        alone = np.empty(len(columns), dtype=np.int64)
        alone[order] = np.arange(len(columns))
        columns = replace(columns, family=alone)
    reads = columns.reads
    family = columns.family
    density = np.bincount(family, columns.density * reads) / np.bincount(family, reads)
    memory = (density < options.boundary * max(1.0, columns.root_density))[family]
    parameters = blend_parameters(columns, memory, limits, options)
    memory_order = spread_evenly(order[memory[order]], columns, parameters.steps)
    return Arrangement(order[~memory[order]], memory_order)


def spread_evenly(
    requests: NDArray[np.int64], columns: PolicyInput, steps: float
) -> NDArray[np.int64]:
    """Requests in the order of their planned start.

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
    late = columns.outcomes[requests, -1]
    first = np.flatnonzero(np.diff(columns.family[requests], prepend=-1))
    member = np.repeat(np.arange(len(first)), np.diff(first, append=len(requests)))
    work = outputs * (columns.held_tokens[requests] + columns.holding.growth * outputs / 2)
    family_work = np.bincount(member, work)
    size = np.bincount(member)
    span = np.where(size > 1, steps * family_work / max(1.0, family_work.sum()), 0.0)
    length = np.maximum.reduceat(late, first) if len(first) else late
    fraction = _spread_evenly(length, np.bincount(member, outputs).astype(np.float64))
    begin = fraction * np.maximum(0.0, steps - length - span)
    start = begin[member] + span[member] * _rank_share(member, first, size)
    if columns.request is not None:
        # An engine is given all answers of a request at once: they have the start of the first.
        change = np.diff(columns.request[requests], prepend=-1) != 0
        start = start[np.flatnonzero(change)][np.cumsum(change) - 1]
    order = np.argsort(start, kind="stable")
    return requests[order]


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
