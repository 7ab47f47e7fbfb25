"""Ranges of the prompts' order: where they are cut, and the requests of one, out of all runs.

Splitters are whole prompts, with the place of one that has it, out of the runs themselves. So a
range has its size however deep the prefixes are that all prompts share, and however many prompts
are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.offsets import offsets_of
from blendplan.planning.large.reading import Run
from blendplan.planning.large.spill import read_batches, requests_of
from blendplan.requests.columns import Requests
from blendplan.tree.order import sorted_order


@dataclass(frozen=True)
class Splitter:
    """The least request of a range: its prompt, int32 [p], and its place."""

    prompt: NDArray[np.int32]
    place: int


@dataclass(frozen=True)
class Slice:
    """Batches of a run that hold all of its requests in a range, and perhaps others."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class Range:
    """A stretch of the prompts' order, in which equal prompts stand by place.

    Attributes:
        number: from 0, in this order.
        slices: what to read.
        low, high: the least request of it and of the next; None at the ends of the order.
        dropped: places of requests that are in the runs and not planned, rising; int64.
    """

    number: int
    slices: tuple[Slice, ...]
    low: Splitter | None
    high: Splitter | None
    dropped: NDArray[np.int64]


def cut_ranges(runs: Sequence[Run], range_bytes: int, dropped: NDArray[np.int64]) -> list[Range]:
    """Ranges of about as many bytes, from the first prompt of each batch of each run.

    Args:
        runs: in the order of the places of their requests.
        range_bytes: prompts and bodies that a range holds, about.
        dropped: see `Range`.
    """
    tokens = np.concatenate([run.leader_tokens for run in runs])
    lengths = np.concatenate([np.diff(run.leader_offsets) for run in runs])
    batches = [len(run.batch_bytes) for run in runs]
    order, _ = sorted_order(tokens, offsets_of(lengths))
    total = sum(int(run.batch_bytes.sum()) for run in runs)
    count = max(1, round(total / range_bytes))
    # Half of the last batch whose leader comes before a prompt comes before it too.
    halves = [(run.batch_bytes + np.append(0, run.batch_bytes[:-1])) / 2.0 for run in runs]
    passed_bytes = np.concatenate(halves)[order]
    before = np.cumsum(passed_bytes) - passed_bytes
    cuts = np.searchsorted(before, total * np.arange(1, count) / count)
    cuts = np.unique(cuts[(cuts > 0) & (cuts < len(order))])
    run_of = np.repeat(np.arange(len(runs)), batches)
    batch_of = np.arange(len(order)) - np.repeat(np.cumsum(batches) - batches, batches)
    splitters: list[Splitter | None] = [None]
    bounds = [np.zeros(len(runs), np.int64)]
    for previous, cut in zip([0, *cuts], cuts, strict=False):
        leader = order[cut]
        run, batch = runs[run_of[leader]], int(batch_of[leader])
        splitters.append(_splitter(run, batch))
        # Batches of each run whose leader comes before.
        passed = np.bincount(run_of[order[previous:cut]], minlength=len(runs))
        bounds.append(bounds[-1] + passed)
    splitters.append(None)
    bounds.append(np.array(batches, np.int64))
    ranges = []
    for number, (low, high) in enumerate(pairwise(splitters)):
        # The batch before the first leader may reach into the range.
        starts, ends = np.maximum(bounds[number] - 1, 0), bounds[number + 1]
        slices = tuple(
            Slice(run.path, int(start), int(end))
            for run, start, end in zip(runs, starts, ends, strict=True)
            if start < end
        )
        ranges.append(Range(number, slices, low, high, dropped))
    return ranges


def load_range(one: Range, estimated: bool) -> Requests:
    """The requests of a range, as their runs have them, one run after the other; rows are places.

    Args:
        one: the range.
        estimated: whether prompts are estimates.
    """
    return requests_of([batch for part in one.slices for batch in _within(part, one)], estimated)


def _within(part: Slice, one: Range) -> list[pa.RecordBatch]:
    """Batches of a slice without what lies outside of the range or is dropped."""
    batches = list(read_batches(part.path, part.start, part.end))
    for place in {0, len(batches) - 1}:
        batches[place] = _cut(batches[place], one)
    if len(one.dropped):
        batches = [_undropped(batch, one.dropped) for batch in batches]
    return [batch for batch in batches if batch.num_rows]


def _cut(batch: pa.RecordBatch, one: Range) -> pa.RecordBatch:
    if not batch.num_rows:
        return batch
    prompts = batch.column("prompt")
    tokens = prompts.flatten().to_numpy()
    offsets = offsets_of(prompts.value_lengths().to_numpy())
    rows = batch.column("source_row").to_numpy()
    start, end = 0, batch.num_rows
    if one.low is not None:
        start = _first_from(tokens, offsets, rows, one.low.prompt, one.low.place)
    if one.high is not None:
        end = _first_from(tokens, offsets, rows, one.high.prompt, one.high.place)
    return batch.slice(start, max(0, end - start))


def _undropped(batch: pa.RecordBatch, dropped: NDArray[np.int64]) -> pa.RecordBatch:
    gone = np.isin(batch.column("source_row").to_numpy(), dropped)
    return batch.filter(pa.array(~gone)) if gone.any() else batch


def _splitter(run: Run, batch: int) -> Splitter:
    start, end = run.leader_offsets[batch : batch + 2]
    first = next(read_batches(run.path, batch, batch + 1))
    place = int(first.column("source_row")[0].as_py())
    return Splitter(run.leader_tokens[start:end].copy(), place)


@kernel
def _first_from(
    tokens: NDArray[np.int32],
    offsets: NDArray[np.int64],
    places: NDArray[np.int64],
    prompt: NDArray[np.int32],
    place: int,
) -> int:
    """The first of sorted requests that is not before a splitter."""
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) >> 1
        own = tokens[offsets[middle] : offsets[middle + 1]]
        most = min(len(own), len(prompt))
        at = 0
        while at < most and own[at] == prompt[at]:
            at += 1
        if at < most:
            before = own[at] < prompt[at]
        elif len(own) != len(prompt):
            before = len(own) < len(prompt)
        else:
            before = places[middle] < place
        if before:
            low = middle + 1
        else:
            high = middle
    return low
