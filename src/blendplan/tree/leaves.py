"""The leaves of a tree in order: where each stands, and where it should."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.tree.annotate import compute_density
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sort import own_ends


@dataclass(frozen=True)
class Leaves:
    """The l leaves in depth-first order. A leaf is all requests that end at one node.

    Places are seconds of work, compute and memory, as shares of the whole: a leaf's place is the
    work of the leaves before it plus half its own.

    Attributes:
        node: the node of each leaf, rising; int32 [l].
        work: share of all work; float64 [l].
        density: compute density, sharing among identical prompts included; float64 [l].
        place: place in the tree's order; float64 [l].
        ideal: place in falling order of density, ties as they stand; float64 [l].
    """

    node: NDArray[np.int32]
    work: NDArray[np.float64]
    density: NDArray[np.float64]
    place: NDArray[np.float64]
    ideal: NDArray[np.float64]

    @property
    def displacement(self) -> float:
        """Mean distance between place and ideal place, by work; 0 when the leaves are in order."""
        return float(np.sum(self.work * np.abs(self.place - self.ideal)))


def leaves_in_order(
    tree: PrefixTree,
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    token_s: NDArray[np.float64],
) -> Leaves:
    """The leaves of a tree, given each request's demand and its compute per token in seconds."""
    node, compute, memory, saved = _sums(
        tree.depth, tree.request_start, own_ends(tree), tree.order, compute_s, memory_s, token_s
    )
    sharing = np.divide(saved, compute, out=np.zeros_like(saved), where=compute > 0)
    density = compute_density(sharing, compute, memory)
    work = compute + memory
    work /= max(float(work.sum()), np.finfo(np.float64).tiny)
    falling = np.argsort(-density, kind="stable")
    ideal = np.empty_like(work)
    ideal[falling] = _middles(work[falling])
    return Leaves(node, work, density, _middles(work), ideal)


def _middles(work: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = np.cumsum(work) - work / 2
    return middles


@kernel
def _sums(
    depth: NDArray[np.int32],
    own_start: NDArray[np.int64],
    own_end: NDArray[np.int64],
    order: NDArray[np.int64],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    token_s: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Node, compute, memory traffic and compute saved by sharing of each leaf, in seconds."""
    leaves = 0
    for v in range(len(depth)):
        leaves += own_end[v] > own_start[v]
    node = np.empty(leaves, dtype=np.int32)
    compute = np.zeros(leaves)
    memory = np.zeros(leaves)
    saved = np.zeros(leaves)
    leaf = 0
    for v in range(len(depth)):
        if own_end[v] == own_start[v]:
            continue
        node[leaf] = v
        for i in range(own_start[v], own_end[v]):
            compute[leaf] += compute_s[order[i]]
            memory[leaf] += memory_s[order[i]]
            saved[leaf] += token_s[order[i]]
        saved[leaf] *= depth[v] * (1.0 - 1.0 / (own_end[v] - own_start[v]))
        leaf += 1
    return node, compute, memory, saved
