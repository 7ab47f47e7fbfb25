"""The leaves of a tree in order: what each costs, where it stands, and where it should."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.tree.annotate import compute_density
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import divided_tokens
from blendplan.tree.sort import own_ends

# Columns of sums over the requests of a leaf, or of several leaves. REQUESTS: their number. WORK:
# share of all seconds of work, compute and memory. MEMORY: memory traffic in seconds. TOKEN:
# compute of one more token of prefix for each of them, in seconds. LEFT: compute in seconds, that
# of shared prefixes divided among those that share them. PLACE, IDEAL: place and ideal place times
# work.
REQUESTS, WORK, MEMORY, TOKEN, LEFT, PLACE, IDEAL = range(7)
COLUMNS = 7


class Leaves(NamedTuple):
    """The l leaves in depth-first order. A leaf is all requests that end at one node.

    A leaf's place is the work of the leaves before it plus half its own; its ideal place is the
    same in falling order of density, ties as they stand.

    Attributes:
        node: the node of each leaf, rising; int32 [l].
        sums: the columns above; float64 [l, 7].
    """

    node: NDArray[np.int32]
    sums: NDArray[np.float64]

    @property
    def displacement(self) -> float:
        """Mean distance between place and ideal place, by work; 0 when the leaves are in order."""
        return float(np.abs(self.sums[:, PLACE] - self.sums[:, IDEAL]).sum())


class LeafDemand:
    """What the leaves of a tree, and of what it is split into, cost: a split moves whole leaves.

    Args:
        tree: m nodes over n requests.
        compute_s, memory_s: demand of each request by itself in seconds; float64 [n].
        token_s: compute of each request per token in seconds; float64 [n].
    """

    def __init__(
        self,
        tree: PrefixTree,
        compute_s: NDArray[np.float64],
        memory_s: NDArray[np.float64],
        token_s: NDArray[np.float64],
    ) -> None:
        # By the first request of the leaf: number of requests, work, memory, token and compute.
        self._sums = _leaf_sums(tree.order, tree.node_of, compute_s, memory_s, token_s)
        self._sums[:, WORK] /= max(float(self._sums[:, WORK].sum()), np.finfo(np.float64).tiny)

    def density(self, tree: PrefixTree) -> NDArray[np.float64]:
        """Compute density of every node, as in `annotate`; float64 [m]."""
        left, memory = _over_subtrees(tree.parent, *self._node_and_sums(tree))
        return compute_density(left, memory)

    def in_order(self, tree: PrefixTree) -> Leaves:
        """The leaves as they stand in a tree."""
        node, sums = self._node_and_sums(tree)
        work = sums[:, WORK]
        falling = np.argsort(-compute_density(sums[:, LEFT], sums[:, MEMORY]), kind="stable")
        ideal = np.empty_like(work)
        ideal[falling] = _middles(work[falling])
        return Leaves(node, np.column_stack([sums, work * _middles(work), work * ideal]))

    def _node_and_sums(self, tree: PrefixTree) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Node of each leaf, and its columns up to `LEFT`."""
        node = np.flatnonzero(own_ends(tree) > tree.request_start)
        sums = self._sums[tree.order[tree.request_start[node]]]
        # Until here the column holds all the compute.
        sums[:, LEFT] -= sums[:, TOKEN] * (tree.depth[node] - divided_tokens(tree)[node])
        return node.astype(np.int32), sums


def _middles(work: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = np.cumsum(work) - work / 2
    return middles


@kernel
def _leaf_sums(
    order: NDArray[np.int64],
    node_of: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    token_s: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sums over each leaf, in the row of the leaf's first request in order; [n, 5]."""
    sums = np.zeros((len(order), LEFT + 1))
    first = -1
    for r in order:
        if first < 0 or node_of[r] != node_of[first]:
            first = r
        sums[first, REQUESTS] += 1.0
        sums[first, WORK] += compute_s[r] + memory_s[r]
        sums[first, MEMORY] += memory_s[r]
        sums[first, TOKEN] += token_s[r]
        sums[first, LEFT] += compute_s[r]
    return sums


@kernel
def _over_subtrees(
    parent: NDArray[np.int32], node: NDArray[np.int32], sums: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute left and memory traffic of every subtree, in seconds."""
    left = np.zeros(len(parent))
    memory = np.zeros(len(parent))
    for leaf in range(len(node)):
        left[node[leaf]] = sums[leaf, LEFT]
        memory[node[leaf]] = sums[leaf, MEMORY]
    for v in range(len(parent) - 1, 0, -1):
        left[parent[v]] += left[v]
        memory[parent[v]] += memory[v]
    return left, memory
