"""`take_part`: some of the requests, prepared by themselves; `thinned_rows`: an even selection."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planning.prepare import Prepared, prepare
from blendplan.requests.columns import select

# Neighbours in depth-first order that are taken together, so that they still share prefixes; fewer
# where there would otherwise be fewer stretches than `_STRETCHES`, and too few kinds of requests.
_TOGETHER = 64
_STRETCHES = 64


def take_part(
    prepared: Prepared,
    target: Machine,
    rows: NDArray[np.int64],
    *,
    preserve_sharing: float = 0.99,
) -> Prepared:
    """Some of the requests by themselves, with the output lengths that the whole has."""
    known = prepared.lengths.take(prepared.sequences.first()[rows])
    requests = select(prepared.requests, rows)
    part = prepare(
        requests, target, lengths=known, preserve_sharing=preserve_sharing, seed=prepared.seed
    )
    happens = replace(
        part.workload, output_tokens=prepared.workload.output_tokens[prepared.sequences.of(rows)]
    )
    return replace(part, workload=happens)


def thinned_rows(order: NDArray[np.int64], most: int, shift: float = 0.0) -> NDArray[np.int64]:
    """So many of the requests, in even stretches of the depth-first order; rising, int64 [most].

    Every family of requests has its share, and its members still meet others with their prefix.

    Args:
        order: n requests in depth-first order; int64 [n].
        most: how many to take, no more than n.
        shift: where in its part of the order each stretch is, from 0 to 1.
    """
    together = max(1, min(_TOGETHER, most // _STRETCHES))
    count = -(-most // together)
    # What is taken and what is left out, in turn.
    taken, left = (np.diff(np.arange(count + 1) * n // count) for n in (most, len(order) - most))
    starts = np.cumsum(taken + left) - (taken + left) + (left * shift).astype(np.int64)
    within = np.arange(most) - np.repeat(np.cumsum(taken) - taken, taken)
    return np.sort(order[np.repeat(starts, taken) + within])
