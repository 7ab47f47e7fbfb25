"""`sharing_families`: which requests must run close together for their common prefix to pay."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.tree.prefix_tree import PrefixTree


def sharing_families(tree: PrefixTree, cost: float = 0.005) -> NDArray[np.int64]:
    """Number of each request's family; families are numbered in depth-first order; int64 [n].

    Running the two halves of a subtree at different times computes its topmost segment twice. Where
    that is more than ``cost`` times the distinct tokens of the subtree, all of its requests form
    one family. Requests that share less are families of their own.

    Args:
        tree: m nodes over n requests.
        cost: share of a subtree's tokens that may be computed twice. Chosen on the paper's four
            workloads (benchmarks/paper.py goals); there, families make a difference of at most 0.1
            points of the share of the bound (benchmarks/paper.py ablation).
    """
    family = np.empty(len(tree), dtype=np.int64)
    family[tree.order] = _families(
        tree.parent, tree.depth, tree.request_start, tree.request_end, cost
    )
    return family


@kernel
def _families(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    cost: float,
) -> NDArray[np.int64]:
    """Family of each position of the depth-first order."""
    m = len(parent)
    distinct = np.zeros(m, dtype=np.int64)
    for v in range(m - 1, 0, -1):
        distinct[v] += depth[v] - depth[parent[v]]
        distinct[parent[v]] += distinct[v]
    family = np.empty(end[0] - start[0], dtype=np.int64)
    count = 0
    covered = 0
    for v in range(m):
        if start[v] < covered:
            continue
        segment = depth[v] - depth[parent[v]] if v > 0 else 0
        if segment > cost * distinct[v]:
            covered = end[v]
            family[start[v] : covered] = count
            count += 1
            continue
        # The requests that end at this node; its children follow by themselves.
        own_end = start[v + 1] if v + 1 < m else end[v]
        for position in range(start[v], own_end):
            family[position] = count
            count += 1
        covered = own_end
    return family
