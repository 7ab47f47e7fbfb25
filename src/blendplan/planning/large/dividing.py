"""Third pass: which part each request goes to, and the requests of each range by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.planning.division import FINEST, assign_replicas, neighbours
from blendplan.planning.large.job import Job
from blendplan.planning.large.pricing import Corpus, Priced, common_tokens, rows_of
from blendplan.planning.large.ranges import Range
from blendplan.planning.large.spill import batch_of, rows_at_once, spilling
from blendplan.tree.build import tree_of


@dataclass(frozen=True)
class Division:
    """How a range is divided: runs of neighbours in the prompts' order, and the part of each.

    Attributes:
        one: the range.
        columns: see `Priced`.
        bounds: where k runs begin, and the end of the last; int64 [k + 1].
        part: of each run; int32 [k].
    """

    one: Range
    columns: Path
    bounds: NDArray[np.int64]
    part: NDArray[np.int32]


@dataclass(frozen=True)
class Share:
    """The batches of a file that hold the requests of one part."""

    path: Path
    start: int
    end: int


def divide_ranges(
    ranges: Sequence[Range], priced: Sequence[Priced], replicas: int
) -> list[Division]:
    """Divide all requests into parts of equal compute and equal memory time.

    Each range is cut into runs of neighbouring subtrees as small as `assign_replicas` may need
    them. These are then divided as requests are, in the tree that they have over all ranges.

    Args:
        ranges, priced: those that hold requests, in order.
        replicas: number of parts.

    Returns:
        Of each range; parts are numbered from 0 without gaps.
    """
    most = (
        FINEST * sum(one.compute_s for one in priced) / replicas,
        FINEST * sum(one.memory_s for one in priced) / replicas,
    )
    runs = [_runs_of(one, most) for one in priced]
    for number, (one, other) in enumerate(pairwise(priced), 1):
        runs[number].shared[0] = common_tokens(one.last, other.first)
    begins = np.concatenate([own.shared for own in runs])
    # A run stands for a prompt that ends below the deepest prefix that it shares with a neighbour.
    ends = (np.maximum(begins, np.append(begins[1:], 0)) + 1).astype(np.int32)
    tree = tree_of(np.arange(len(begins)), begins, ends)
    compute_s, memory_s = (
        np.concatenate([getattr(own, name) for own in runs]) for name in ("compute_s", "memory_s")
    )
    assigned = assign_replicas(tree, compute_s, memory_s, replicas)
    part = np.unique(assigned, return_inverse=True)[1].astype(np.int32)
    cuts = np.cumsum([len(own.shared) for own in runs])[:-1]
    return [
        Division(one, costs.columns, own.bounds, mine)
        for one, costs, own, mine in zip(ranges, priced, runs, np.split(part, cuts), strict=True)
    ]


class _Runs(NamedTuple):
    """k runs of neighbours: bounds, [k + 1], tokens shared with the one before, and seconds."""

    bounds: NDArray[np.int64]
    shared: NDArray[np.int32]
    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]


def _runs_of(one: Priced, most: tuple[float, float]) -> _Runs:
    """The runs of a range, each with at most so many seconds of compute and of memory."""
    with np.load(one.columns) as columns:
        shared, lengths = columns["shared"], columns["lengths"]
        compute_s, memory_s = columns["compute_s"], columns["memory_s"]
    # A kind of work that there is none of limits nothing.
    compute, memory = compute_s / (most[0] or 1.0), memory_s / (most[1] or 1.0)
    bounds = neighbours(tree_of(np.arange(len(shared)), shared, lengths), compute, memory, 1.0)
    begins = bounds[:-1]
    return _Runs(
        bounds,
        shared[begins],
        np.add.reduceat(compute_s, begins),
        np.add.reduceat(memory_s, begins),
    )


def distribute(job: Job, corpus: Corpus, division: Division) -> dict[int, Share]:
    """Write the requests of a range grouped by part; where those of each part are."""
    requests = rows_of(division.one, corpus)
    with np.load(division.columns) as columns:
        order = columns["order"]
    part = np.empty(len(requests), np.int32)
    part[order] = np.repeat(division.part, np.diff(division.bounds))
    by_part = np.argsort(part, kind="stable")
    numbers, starts = np.unique(part[by_part], return_index=True)
    step = rows_at_once(requests)
    path = job.folder / f"range-{division.one.number:06d}.arrow"
    shares = {}
    written = 0
    with spilling(path) as writer:
        for number, start, end in zip(
            numbers.tolist(), starts, [*starts[1:], len(by_part)], strict=True
        ):
            first = written
            for place in range(start, end, step):
                writer.write_batch(batch_of(requests, by_part[place : min(place + step, end)]))
                written += 1
            shares[number] = Share(path, first, written)
    return shares
