"""`take_part`: some of the requests, prepared by themselves; `thinned_rows`: an even selection."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planning.prepare import Prepared, prepare
from blendplan.requests.columns import select

# Neighbours in depth-first order that are taken together, so that they still share prefixes.
_TOGETHER = 64


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


def thinned_rows(order: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """About ``most`` of the requests, in stretches of the depth-first order; rising.

    Args:
        order: all requests in depth-first order; int64 [n].
        most: how many to take.
    """
    stretch = np.arange(len(order)) // _TOGETHER
    every = -(-len(order) // most)
    return np.sort(order[stretch % every == 0])
