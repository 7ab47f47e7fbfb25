"""The leaves of a tree in order: what each costs, where it stands, and where it should."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.tree.annotate import compute_density
from blendplan.tree.layout import own_ends
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import divided_tokens

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
        # The columns up to LEFT, which here is all compute; in the row of a leaf's first request.
        self._sums = _leaf_sums(tree.order, tree.node_of, compute_s, memory_s, token_s)
        self._sums[:, WORK] /= max(float(self._sums[:, WORK].sum()), np.finfo(np.float64).tiny)

    def density(self, tree: PrefixTree) -> NDArray[np.float64]:
        """Compute density of every node, as in `annotate`; float64 [m]."""
        return compute_density(
            *_over_subtrees(
                tree.parent,
                tree.depth,
                tree.request_start,
                tree.request_end,
                tree.order,
                divided_tokens(tree),
                self._sums,
            )
        )

    def in_order(self, tree: PrefixTree) -> Leaves:
        """The leaves as they stand in a tree."""
        node, sums = _in_order(
            tree.depth, tree.request_start, own_ends(tree), tree.order, divided_tokens(tree),
            self._sums,
        )  # fmt: skip
        _set_ideal(
            sums, np.argsort(-compute_density(sums[:, LEFT], sums[:, MEMORY]), kind="stable")
        )
        return Leaves(node, sums)


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
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    order: NDArray[np.int64],
    divided: NDArray[np.float64],
    leaf_sums: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute left and memory traffic of every subtree, in seconds."""
    m = len(parent)
    left = np.zeros(m)
    memory = np.zeros(m)
    for v in range(m - 1, -1, -1):
        if (start[v + 1] if v + 1 < m else end[v]) > start[v]:
            first = order[start[v]]
            saved_tokens = depth[v] - divided[v]
            left[v] += leaf_sums[first, LEFT] - leaf_sums[first, TOKEN] * saved_tokens
            memory[v] += leaf_sums[first, MEMORY]
        if v > 0:
            left[parent[v]] += left[v]
            memory[parent[v]] += memory[v]
    return left, memory


@kernel
def _in_order(
    depth: NDArray[np.int32],
    start: NDArray[np.int64],
    own_end: NDArray[np.int64],
    order: NDArray[np.int64],
    divided: NDArray[np.float64],
    leaf_sums: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Node and columns of each leaf, `IDEAL` left open."""
    leaves = np.count_nonzero(own_end > start)
    node = np.empty(leaves, dtype=np.int32)
    sums = np.empty((leaves, COLUMNS))
    leaf = 0
    done = 0.0
    for v in range(len(depth)):
        if own_end[v] == start[v]:
            continue
        first = order[start[v]]
        node[leaf] = v
        for column in range(LEFT + 1):
            sums[leaf, column] = leaf_sums[first, column]
        sums[leaf, LEFT] -= sums[leaf, TOKEN] * (depth[v] - divided[v])
        work = sums[leaf, WORK]
        sums[leaf, PLACE] = work * (done + work / 2)
        done += work
        leaf += 1
    return node, sums


@kernel
def _set_ideal(sums: NDArray[np.float64], falling: NDArray[np.int64]) -> None:
    """Fill in `IDEAL`, given the leaves in falling order of density."""
    done = 0.0
    for leaf in falling:
        work = sums[leaf, WORK]
        sums[leaf, IDEAL] = work * (done + work / 2)
        done += work
