"""`sort_tree`: compute-heavy children first (algorithm 1)."""

import numpy as np
from numpy.typing import NDArray

from blendplan.tree.layout import lay_out
from blendplan.tree.prefix_tree import PrefixTree


def sort_tree(tree: PrefixTree, density: NDArray[np.float64]) -> PrefixTree:
    """Order the children of every node by compute density, highest first (5.2, algorithm 1).

    Ties keep the order that the children have. Requests that end at a node still come before its
    children. Nodes are numbered anew, so annotate again for the totals of the sorted tree.

    Args:
        tree: m nodes.
        density: compute density of each node; float64 [m].
    """
    return sorted_with_nodes(tree, density)[0]


def sorted_with_nodes(
    tree: PrefixTree, density: NDArray[np.float64]
) -> tuple[PrefixTree, NDArray[np.int32]]:
    """`sort_tree`, and for each node of the sorted tree its number in the old one; int32 [m]."""
    # One stable sort of all nodes at once also sorts every list of siblings.
    siblings = np.argsort(-density, kind="stable")
    return lay_out(
        tree.parent, tree.depth, tree.request_start, own_ends(tree), tree.order, siblings
    )


def own_ends(tree: PrefixTree) -> NDArray[np.int64]:
    """Where the requests that end at a node itself stop in ``tree.order``; int64 [m].

    They come before its children's, and the next node in depth-first order is the first child or,
    for a leaf, the next to begin a range.
    """
    return np.append(tree.request_start[1:], tree.request_end[0])
