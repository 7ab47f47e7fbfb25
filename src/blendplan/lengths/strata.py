"""`Strata`: requests parted into kinds that are likely to have outputs of a similar length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.lengths.protocol import stated_lengths
from blendplan.lengths.traits import Traits
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

FloatArray = NDArray[np.float64]

# Requests that the cuts are chosen by, and fewest of them on either side of a cut.
_LOOKED_AT = 16_384
_LEAST = 8
# One stratum for so many of the requests that a usual sample takes, and at most so many strata.
_SAMPLES_EACH = 6
_MOST = 128
_USUAL_FRACTION, _USUAL_LEAST = 0.01, 200
# Directions that cuts are composed of, and rounds to find the one of the largest spread.
_COMPONENTS = 32
_ROUNDS = 4
_ITERATIONS = 8
_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Strata:
    """h kinds of requests; kinds with neighbouring numbers are the most alike.

    Attributes:
        number: of each request; int64 [n].
        cut: when kind i and kind i + 1 were parted, rising with likeness; int64 [h - 1].
    """

    number: NDArray[np.int64]
    cut: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cut) + 1

    def joined(self, count: NDArray[np.int64], least: int) -> NDArray[np.int64]:
        """Join kinds that hold too little with their likest neighbours until none is left.

        Args:
            count: what each kind holds, say samples; int64 [h].
            least: what it must hold; one kind is left where all together hold less.

        Returns:
            Number of the joined kind of each kind, rising; int64 [h].
        """
        first = list(range(len(self)))
        held = [int(c) for c in count]
        cut = [int(c) for c in self.cut]
        while len(held) > 1 and min(held) < least:
            poor = min(range(len(held)), key=held.__getitem__)
            left = poor > 0 and (poor == len(held) - 1 or cut[poor - 1] > cut[poor])
            at = poor - 1 if left else poor
            held[at : at + 2] = [held[at] + held[at + 1]]
            del cut[at], first[at + 1]
        return np.searchsorted(np.array(first), np.arange(len(self)), side="right") - 1


def strata_of(requests: Requests, tree: PrefixTree) -> Strata:
    """Part requests into kinds by words at both ends of the prompt, its length, cap and sharing.

    The largest kind, by squared distance from its mean, is cut in two across the direction in which
    it spreads most, where that leaves the least spread, until there is one kind for six of the
    requests that a sample of 1 %, or of 200, takes. A few thousand requests that are not stated to
    have a certain output length, evenly over the tree, are looked at for this. The same requests
    always give the same kinds, whatever was sampled.

    Args:
        requests: n >= 1 requests.
        tree: of those, before any split.
    """
    unknown = tree.order[stated_lengths(requests)[tree.order] < 0]
    unknown = unknown if len(unknown) else tree.order
    count = min(_LOOKED_AT, len(unknown))
    rows = unknown[np.arange(count) * len(unknown) // count]
    traits = Traits.of(requests, tree, rows)
    usual = max(_USUAL_LEAST, _USUAL_FRACTION * len(unknown))
    most = int(min(_MOST, usual / _SAMPLES_EACH))
    columns = traits.dense(requests, tree, rows)
    basis = _main_directions(columns)
    cuts = _Cuts(columns @ basis, most)
    direction = np.array(cuts.direction).reshape(-1, basis.shape[1]) @ basis.T
    number = np.empty(len(tree), dtype=np.int64)
    for start in range(0, len(tree), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(tree)))
        number[rows] = _descend(
            *traits.present(requests, rows),
            traits.weights,
            traits.numbers(requests, tree, rows),
            direction,
            np.array(cuts.threshold, dtype=np.float64),
            np.array(cuts.below, dtype=np.int64).reshape(-1, 2),
        )
    leaves, parted = cuts.in_order()
    place = np.empty(len(leaves), dtype=np.int64)
    place[leaves] = np.arange(len(leaves))
    return Strata(place[number], parted)


class _Cuts:
    """Cuts in two, one after the other.

    Attributes:
        direction: of each cut; float64 [v] each.
        threshold: requests beyond it are on the second side.
        below: what is on either side: another cut, or ~i for leaf i.
    """

    def __init__(self, columns: FloatArray, most: int) -> None:
        self.direction: list[FloatArray] = []
        self.threshold: list[float] = []
        self.below: list[list[int]] = []
        members = [np.arange(len(columns))]
        above: list[tuple[int, int] | None] = [None]
        spread = [_spread(columns)]
        while len(members) < most:
            leaf = int(np.argmax(spread))
            if spread[leaf] <= 1e-9:
                break
            inside = columns[members[leaf]]
            direction = _main_direction(inside)
            along = inside @ direction
            threshold = _best_cut(along)
            if threshold is None:
                spread[leaf] = 0.0
                continue
            new = len(members)
            place = above[leaf]
            if place is not None:
                self.below[place[0]][place[1]] = len(self.below)
            above[leaf] = (len(self.below), 0)
            above.append((len(self.below), 1))
            self.direction.append(direction)
            self.threshold.append(threshold)
            self.below.append([~leaf, ~new])
            beyond = along > threshold
            members.append(members[leaf][beyond])
            members[leaf] = members[leaf][~beyond]
            spread[leaf] = _spread(columns[members[leaf]])
            spread.append(_spread(columns[members[new]]))

    def in_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Leaves from side to side, int64 [h], and the cut between neighbours, int64 [h - 1]."""
        leaves: list[int] = []
        parted: list[int] = []
        stack = [(0, -1)] if self.below else [(~0, -1)]
        while stack:
            place, cut = stack.pop()
            if place < 0:
                if leaves:
                    parted.append(cut)
                leaves.append(~place)
            else:
                first, second = self.below[place]
                stack += [(second, place), (first, cut)]
        return np.array(leaves, dtype=np.int64), np.array(parted, dtype=np.int64)


def _spread(columns: FloatArray) -> float:
    """Squared distance from the mean, summed; 0 for what is too little to cut."""
    if len(columns) < 2 * _LEAST:
        return 0.0
    return float(len(columns) * columns.var(axis=0).sum())


def _main_directions(columns: FloatArray) -> FloatArray:
    """About the directions of the largest variance, by orthogonal iteration; float64 [v, c]."""
    mean = columns.mean(axis=0)
    count = min(_COMPONENTS, columns.shape[1], len(columns))
    directions = (columns[np.arange(count) * len(columns) // count] - mean).T
    for _ in range(_ROUNDS):
        directions = np.linalg.qr(directions)[0]
        along = columns @ directions
        along -= along.mean(axis=0)
        directions = columns.T @ along
    return np.linalg.qr(directions)[0]


def _main_direction(columns: FloatArray) -> FloatArray:
    """About the direction of the largest variance, by powers; float64 [v]."""
    mean = columns.mean(axis=0)
    variance = columns.var(axis=0)
    direction = np.zeros(columns.shape[1])
    direction[int(np.argmax(variance))] = 1.0
    for _ in range(_ITERATIONS):
        along = columns @ direction
        along -= along.mean()
        direction = along @ columns - along.sum() * mean
        direction /= max(1e-300, float(np.sqrt(direction @ direction)))
    return direction


def _best_cut(along: FloatArray) -> float | None:
    """Where a cut leaves the least squares on both sides; None where it cannot be cut."""
    values = np.sort(along)
    n = len(values)
    sums = np.cumsum(values - values.mean())
    left = np.arange(_LEAST, n - _LEAST + 1)
    # Variance between the sides; equal values stay together.
    between = sums[left - 1] ** 2 * n / (left * (n - left))
    between[values[left - 1] >= values[left] - 1e-9] = 0.0
    best = int(np.argmax(between))
    if between[best] <= 0.0:
        return None
    at = left[best]
    return float(0.5 * (values[at - 1] + values[at]))


@kernel
def _descend(
    present: NDArray[np.int16],
    norm: NDArray[np.float64],
    weights: NDArray[np.float64],
    numbers: NDArray[np.float64],
    direction: NDArray[np.float64],
    threshold: NDArray[np.float64],
    below: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Leaf of each request; int64 [k]."""
    leaf = np.zeros(len(present), dtype=np.int64)
    words = len(weights)
    if len(threshold) == 0:
        return leaf
    for i in range(len(present)):
        place = 0
        while place >= 0:
            along = 0.0
            for j in range(present.shape[1]):
                word = present[i, j]
                if word < 0:
                    break
                along += weights[word] * norm[i] * direction[place, word]
            for j in range(3):
                along += numbers[i, j] * direction[place, words + j]
            place = below[place, 1 if along > threshold[place] else 0]
        leaf[i] = ~place
    return leaf
