"""The leaves of a tree in order: what each costs, where it stands, and where it should."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.tree.annotate import compute_density, compute_left
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sort import own_ends

# Columns of `Leaves.sums`, and of sums over several leaves.
REQUESTS, LEFT, MEMORY, TOKEN, WORK, PLACE, IDEAL = range(7)
COLUMNS = 7


class Leaves(NamedTuple):
    """The l leaves in depth-first order. A leaf is all requests that end at one node.

    Places are in seconds of work, compute and memory, as shares of the whole: a leaf's place is the
    work of the leaves before it plus half its own; its ideal place is the same in falling order of
    density, ties as they stand.

    Attributes:
        node: the node of each leaf, rising; int32 [l].
        sums: sums over the requests of each leaf; float64 [l, 7]. ``REQUESTS``: their number.
            ``LEFT``: compute in seconds, that of shared prefixes divided among those that share
            them. ``MEMORY``: memory traffic in seconds. ``TOKEN``: compute of one more token of
            prefix for each of them, in seconds. ``WORK``: share of all work. ``PLACE``, ``IDEAL``:
            place and ideal place times work.
    """

    node: NDArray[np.int32]
    sums: NDArray[np.float64]

    @property
    def displacement(self) -> float:
        """Mean distance between place and ideal place, by work; 0 when the leaves are in order."""
        return float(np.abs(self.sums[:, PLACE] - self.sums[:, IDEAL]).sum())


def leaves_in_order(
    tree: PrefixTree,
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    token_s: NDArray[np.float64],
) -> Leaves:
    """The leaves of a tree, given each request's demand and its compute per token in seconds."""
    start, end = tree.request_start, own_ends(tree)
    node = np.flatnonzero(end > start)

    def total(column: NDArray[np.float64]) -> NDArray[np.float64]:
        # The leaves' own requests follow each other without a gap.
        sums: NDArray[np.float64] = np.add.reduceat(column[tree.order], start[node])
        return sums

    sums = np.empty((len(node), COLUMNS))
    sums[:, REQUESTS] = (end - start)[node]
    sums[:, LEFT] = total(compute_left(tree, compute_s, token_s))
    sums[:, MEMORY] = total(memory_s)
    sums[:, TOKEN] = total(token_s)
    work = total(compute_s) + sums[:, MEMORY]
    work /= max(float(work.sum()), np.finfo(np.float64).tiny)
    falling = np.argsort(-compute_density(sums[:, LEFT], sums[:, MEMORY]), kind="stable")
    ideal = np.empty_like(work)
    ideal[falling] = _middles(work[falling])
    sums[:, WORK] = work
    sums[:, PLACE] = work * _middles(work)
    sums[:, IDEAL] = work * ideal
    return Leaves(node.astype(np.int32), sums)


def _middles(work: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = np.cumsum(work) - work / 2
    return middles
