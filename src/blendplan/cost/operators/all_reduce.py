"""`AllReduceModel`: time of an all-reduce within a node, as a few protocols by message size."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

# One-shot, two-shot and ring, or the low-latency, mixed and bulk protocols of NCCL.
PROTOCOLS = 3
LEAST_SIZES = 2  # message sizes that a protocol must be seen at
REWEIGHTINGS = 8
MOST_SIZES = 24


class Protocol(NamedTuple):
    """One way to reduce: latency plus size over rate, up to a message size.

    Attributes:
        up_to_bytes: where the next protocol takes over, infinity for the last.
        latency_s: of an empty message.
        s_per_byte: of the message on one GPU.
    """

    up_to_bytes: float
    latency_s: float
    s_per_byte: float


class AllReduceModel:
    """Time of an all-reduce over a number of GPUs of one node.

    Args:
        protocols: by number of GPUs, ordered by size; from an earlier fit, else call `fit`.

    Attributes:
        protocols_: fitted protocols by number of GPUs.
    """

    def __init__(self, protocols: dict[int, list[Protocol]] | None = None) -> None:
        if protocols is not None:
            self.protocols_ = protocols

    def fit(self, ranks: ArrayLike, message_bytes: ArrayLike, time_s: ArrayLike) -> Self:
        """Fit to measured calls: for each number of GPUs, the best places to change protocol."""
        ranks_ = np.asarray(ranks, np.int64)
        sizes = np.asarray(message_bytes, np.float64)
        measured_s = np.asarray(time_s, np.float64)
        self.protocols_ = {
            int(count): _protocols(sizes[ranks_ == count], measured_s[ranks_ == count])
            for count in np.unique(ranks_)
        }
        return self

    def predict(self, ranks: ArrayLike, message_bytes: ArrayLike) -> NDArray[np.float64]:
        """Seconds of each call; float64, the arguments broadcast.

        A number of GPUs that was not measured takes the next larger one's protocols, else the
        largest's. One GPU takes no time.
        """
        counts, sizes = np.broadcast_arrays(
            np.asarray(ranks, np.int64), np.asarray(message_bytes, np.float64)
        )
        predicted_s = np.zeros(counts.shape)
        known = sorted(self.protocols_)
        for count in np.unique(counts[counts > 1]):
            nearest = next((ranks for ranks in known if ranks >= count), known[-1])
            here = counts == count
            predicted_s[here] = _times(np.array(self.protocols_[nearest]), sizes[here])
        return predicted_s


def _times(protocols: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds by protocols that pass into one another within half an octave of their limits.

    Sizes are measured an octave apart, so nobody knows where in between the library changes.
    """
    each_s = protocols[:, 1, None] + protocols[:, 2, None] * sizes
    time_s = each_s[np.searchsorted(protocols[:-1, 0], sizes), np.arange(len(sizes))]
    for place, limit in enumerate(protocols[:-1, 0]):
        share = np.log2(np.maximum(sizes, 1.0) / limit) + 0.5
        between = (share > 0.0) & (share < 1.0) & (each_s[place : place + 2] > 0.0).all(axis=0)
        lower_s, upper_s = each_s[place, between], each_s[place + 1, between]
        time_s[between] = lower_s * (upper_s / lower_s) ** share[between]
    return time_s


def _protocols(sizes: NDArray[np.float64], time_s: NDArray[np.float64]) -> list[Protocol]:
    """The protocols, and sizes at which they change, of least summed relative error."""
    distinct = np.unique(sizes)
    # The middle between two sizes at which a protocol may end; thinned where sizes are many.
    chosen = np.unique(
        np.linspace(0, len(distinct), min(len(distinct), MOST_SIZES) + 1).astype(int)
    )
    seen: dict[tuple[int, int], tuple[float, float, float]] = {}

    def piece(first: int, last: int) -> tuple[float, float, float]:
        if (first, last) not in seen:
            inside = (sizes >= distinct[first]) & (sizes <= distinct[last - 1])
            seen[first, last] = _line(sizes[inside], time_s[inside])
        return seen[first, last]

    best: tuple[float, Sequence[int]] = (np.inf, ())
    for count in range(PROTOCOLS):
        for cuts in combinations(chosen[1:-1], count):
            ends = [0, *map(int, cuts), len(distinct)]
            pairs = list(pairwise(ends))
            if count and any(last - first < LEAST_SIZES for first, last in pairs):
                continue
            error = sum(piece(first, last)[0] for first, last in pairs)
            if error < best[0]:
                best = error, ends
    ends = list(best[1])
    middle = [float(np.sqrt(distinct[end - 1] * distinct[end])) for end in ends[1:-1]]
    return [
        Protocol(limit, piece(first, last)[1], piece(first, last)[2])
        for limit, first, last in zip([*middle, np.inf], ends, ends[1:], strict=False)
    ]


def _line(sizes: NDArray[np.float64], time_s: NDArray[np.float64]) -> tuple[float, float, float]:
    """Summed relative error, latency and seconds per byte of the best line, neither negative.

    Absolute relative error is minimised by least squares with weights 1 / sqrt(error).
    """
    from scipy.optimize import nnls  # slow to import, and only fits need it

    terms = np.column_stack([np.ones_like(sizes), sizes]) / time_s[:, None]
    scale = terms.max(axis=0)
    weight = np.ones_like(sizes)
    for _ in range(REWEIGHTINGS):
        found, _ = nnls(terms / scale * weight[:, None], weight)
        error = np.abs(terms / scale @ found - 1.0)
        weight = 1.0 / np.sqrt(np.maximum(error, 0.01))
    return float(error.sum()), float(found[0] / scale[0]), float(found[1] / scale[1])
