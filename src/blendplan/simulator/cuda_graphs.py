"""Which CUDA graphs to capture, given how many steps there are of each size; and what they do.

A *mixed* step computes prompts, beside requests that decode or without; a *decode* step has one
token of each of its requests. Engines replay a graph that was captured for at least as many tokens,
all of the step together, and compute the difference in vain. A step that is larger than every
captured size runs without a graph. Each size costs start-up time and memory, so there may only be
so many.

What a graph saves is not known here: a step with one is taken to be better than any without, and
among the choices that leave the fewest steps without, the one that pads the fewest tokens is best.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError

Histogram = Mapping[int, int]
"""Number of steps by their tokens."""


@dataclass(frozen=True)
class StepSizes:
    """How many steps of a run have how many tokens, mixed steps and decode steps apart."""

    mixed: Histogram
    decode: Histogram

    @classmethod
    def from_metadata(cls, engine: Mapping[str, Any]) -> "StepSizes":
        """Those in the ``engine`` object of a plan's metadata."""
        return cls(*(_numbers(engine[key]) for key in ("mixed_steps", "decode_steps")))

    def as_metadata(self) -> dict[str, dict[str, int]]:
        """The same as JSON values."""
        both = (("mixed_steps", self.mixed), ("decode_steps", self.decode))
        return {key: {str(size): number for size, number in one.items()} for key, one in both}


@dataclass(frozen=True)
class GraphSizes:
    """Sizes to capture, or captured, ascending; in tokens, all of a step together.

    Attributes:
        mixed: of graphs for any step; piecewise in vLLM, of prefill in SGLang.
        decode: of graphs for decode steps only.
        falls_back: whether a decode step that is too large for ``decode`` takes a graph of
            ``mixed``.
        most_padding: a graph of ``mixed`` is not used for a step that it pads to more than so many
            times its tokens.
    """

    mixed: list[int]
    decode: list[int]
    falls_back: bool = True
    most_padding: float = math.inf

    def graph_of(self, tokens: int, *, decode: bool) -> tuple[str, int]:
        """The graph of a step: ``decode``, ``mixed`` or ``none``, and its tokens."""
        if decode and tokens <= max(self.decode, default=0):
            return "decode", self.decode[bisect_left(self.decode, tokens)]
        if (not decode or self.falls_back) and tokens <= max(self.mixed, default=0):
            size = self.mixed[bisect_left(self.mixed, tokens)]
            if size <= self.most_padding * tokens:
                return "mixed", size
        return "none", tokens

    def as_metadata(self) -> dict[str, list[int]]:
        """The sizes as JSON values."""
        return {"mixed": self.mixed, "decode": self.decode}


@dataclass(frozen=True)
class GraphUse:
    """What graphs do over a run; shares are 0 where there is nothing to share.

    Attributes:
        steps: share of the steps that replay a graph.
        tokens: share of the tokens that these steps have.
        padding: padded tokens, as a share of all tokens of the run.
    """

    steps: float
    tokens: float
    padding: float


def graph_use(steps: StepSizes, graphs: GraphSizes) -> GraphUse:
    """What ``graphs`` do over the steps of a run."""
    with_graph = covered = padded = 0
    for histogram, decode in ((steps.mixed, False), (steps.decode, True)):
        for tokens, number in histogram.items():
            kind, size = graphs.graph_of(tokens, decode=decode)
            if kind != "none":
                with_graph += number
                covered += tokens * number
                padded += (size - tokens) * number
    both = (steps.mixed, steps.decode)
    all_steps = sum(number for histogram in both for number in histogram.values())
    tokens = sum(size * number for histogram in both for size, number in histogram.items())
    return GraphUse(
        with_graph / max(1, all_steps), covered / max(1, tokens), padded / max(1, tokens)
    )


def best_sizes(
    steps: Histogram,
    most: int,
    *,
    must: Collection[int] = (),
    most_padding: float = math.inf,
) -> list[int]:
    """The at most ``most`` sizes, all of ``must`` among them, that serve the steps best; exact.

    Best is what leaves the fewest steps without a graph, and of that, what pads the fewest tokens.
    Where steps have more than 1,024 different sizes, it is the best of the most frequent ones.

    Args:
        steps: number of steps by tokens.
        most: largest number of sizes.
        must: sizes to have in any case.
        most_padding: as of `GraphSizes`.

    Returns:
        ascending sizes, as many as pay; those of ``must`` without a step.

    Raises:
        BlendplanError: ``most`` has no room for ``must`` and the largest step.
    """
    expected = {size for size, number in steps.items() if size and number} | set(must)
    needed = len(set(must) | {max(expected, default=0)} - {0})
    if most < needed:
        raise BlendplanError(f"{most} CUDA-graph sizes; at least {needed} are needed")
    if len(expected) <= most:
        return sorted(expected)
    frequent = sorted(expected, key=lambda size: (-steps.get(size, 0), size))[:_CANDIDATES]
    sizes = np.array(sorted({*frequent, *must, max(expected)}), dtype=np.int64)
    # What is not to choose from takes the graph of the next size that is.
    numbers = np.zeros(len(sizes), dtype=np.int64)
    for size, number in steps.items():
        numbers[np.searchsorted(sizes, size)] += number if size else 0
    cost = _run_cost(sizes, numbers, most_padding)
    for size in must:
        # No run of sizes that share a graph goes beyond one that must have its own.
        at = int(np.searchsorted(sizes, size))
        cost[: at + 1, at + 1 :] = _NEVER
    return [int(sizes[last]) for last in _best_split(cost, most)]


def fill_gaps(sizes: Sequence[int], most: int) -> list[int]:
    """``sizes`` and, up to ``most``, further ones between them, where a step would pad the most.

    For steps that nobody expected: each new size parts the gap over which the ratio of its ends is
    largest. Gaps in which no step pads more than 7 tokens stay as they are.
    """
    filled = sorted(sizes)
    while len(filled) < most:
        ratio, place = 0.0, -1
        for at, size in enumerate(filled):
            least = filled[at - 1] + 1 if at else 1
            if size - least > 7 and size / least > ratio:
                ratio, place = size / least, at
        if place < 0:
            break
        least = filled[place - 1] + 1 if place else 1
        filled.insert(place, math.isqrt(least * filled[place]))
    return filled


_NEVER = np.iinfo(np.int64).max // 4
_CANDIDATES = 1024


def _run_cost(
    sizes: NDArray[np.int64], numbers: NDArray[np.int64], most_padding: float
) -> NDArray[np.int64]:
    """Cost of serving sizes i to j by one graph of size j; int64 [k, k].

    Padded tokens, and more than all padding together for each step without a graph.
    """
    count = len(sizes)
    before = np.concatenate([[0], np.cumsum(numbers)])
    tokens_before = np.concatenate([[0], np.cumsum(numbers * sizes)])
    # Of a run to j, the sizes from least[j] on use the graph.
    if most_padding < math.inf:
        least = np.searchsorted(sizes, np.ceil(sizes / most_padding))
    else:
        least = np.zeros(count, dtype=np.int64)
    first = np.maximum(np.arange(count)[:, None], least[None, :])
    padding = sizes[None, :] * (before[None, 1:] - before[first]) - (
        tokens_before[None, 1:] - tokens_before[first]
    )
    without = before[first] - before[:-1, None]
    weight = int(sizes[-1]) * int(numbers.sum()) + 1
    cost: NDArray[np.int64] = padding + weight * without
    cost[np.tril_indices(count, -1)] = _NEVER  # a run does not end before it begins
    return cost


def _best_split(cost: NDArray[np.int64], most: int) -> list[int]:
    """Last index of each of ``most`` runs of consecutive sizes that cost the least together.

    ``cheapest[j]`` is the least cost of the sizes up to j, in as many runs as rounds so far.
    """
    count = len(cost)
    cheapest = cost[0]
    starts = []
    for _ in range(1, most):
        # total[i, j]: the sizes before i in the runs so far, then one run from i to j.
        total = np.concatenate([[_NEVER], cheapest[:-1]])[:, None] + cost
        start = np.argmin(total, axis=0)
        starts.append(start)
        cheapest = np.minimum(total[start, np.arange(count)], _NEVER)
    ends = [count - 1]
    for start in reversed(starts):
        ends.append(int(start[ends[-1]]) - 1)
    return sorted(ends)


def _numbers(histogram: Mapping[str, int]) -> dict[int, int]:
    return {int(size): int(number) for size, number in histogram.items()}
