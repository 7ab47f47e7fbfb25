"""Laying a tree out in depth-first order after its children were reordered or moved."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.tree.build import child_lists
from blendplan.tree.prefix_tree import PrefixTree


def lay_out(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    own_start: NDArray[np.int64],
    own_end: NDArray[np.int64],
    order: NDArray[np.int64],
    siblings: NDArray[np.int64],
) -> tuple[PrefixTree, NDArray[np.int32]]:
    """Number nodes, given in any order, depth first.

    Args:
        parent: parent of each node, -1 for the root, which is node 0; int32 [m].
        depth: prefix length at each node's end in tokens; int32 [m].
        own_start, own_end: the requests that end at a node are
            ``order[own_start[v]:own_end[v]]``; int64 [m].
        order: int64 [n].
        siblings: all nodes, such that siblings stand in the order they shall have; int64 [m].

    Returns:
        The tree, and the place in the arguments of each of its nodes; int32 [m].
    """
    first, children = children_of(parent, siblings)
    nodes, start, end, new_parent, new_order, node_of = _depth_first(
        first, children, own_start, own_end, order
    )
    first_child, next_sibling = child_lists(new_parent)
    tree = PrefixTree(
        parent=new_parent,
        first_child=first_child,
        next_sibling=next_sibling,
        depth=depth[nodes],
        request_start=start,
        request_end=end,
        order=new_order,
        node_of=node_of,
    )
    return tree, nodes


@kernel
def children_of(
    parent: NDArray[np.int32], siblings: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Children of node v as ``children[first[v]:first[v + 1]]``, in the order of ``siblings``."""
    m = len(parent)
    first = np.zeros(m + 2, dtype=np.int32)
    for v in range(m):
        if parent[v] >= 0:
            first[parent[v] + 2] += 1
    for v in range(m):
        first[v + 2] += first[v + 1]
    children = np.empty(m - 1, dtype=np.int32)
    for v in siblings:
        if parent[v] >= 0:
            children[first[parent[v] + 1]] = v
            first[parent[v] + 1] += 1
    return first, children


@kernel
def _depth_first(
    first: NDArray[np.int32],
    children: NDArray[np.int32],
    own_start: NDArray[np.int64],
    own_end: NDArray[np.int64],
    order: NDArray[np.int64],
) -> tuple[
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int32],
]:
    """Nodes in depth-first order, their request ranges and parents, request order, end nodes."""
    m, n = len(own_start), len(order)
    nodes = np.empty(m, dtype=np.int32)
    parent = np.empty(m, dtype=np.int32)
    start = np.empty(m, dtype=np.int64)
    end = np.empty(m, dtype=np.int64)
    new_order = np.empty(n, dtype=np.int64)
    node_of = np.empty(n, dtype=np.int32)
    waiting = np.empty(m, dtype=np.int32)
    waiting_parent = np.empty(m, dtype=np.int32)
    waiting[0], waiting_parent[0] = 0, -1
    top, new, place = 1, 0, 0
    while top > 0:
        top -= 1
        v = waiting[top]
        nodes[new], parent[new], start[new] = v, waiting_parent[top], place
        for i in range(own_start[v], own_end[v]):
            new_order[place] = order[i]
            node_of[order[i]] = new
            place += 1
        end[new] = place
        for i in range(first[v + 1] - 1, first[v] - 1, -1):
            waiting[top], waiting_parent[top] = children[i], new
            top += 1
        new += 1
    for v in range(m - 1, 0, -1):
        end[parent[v]] = max(end[parent[v]], end[v])
    return nodes, start, end, parent, new_order, node_of


def sort_tree(tree: PrefixTree, density: NDArray[np.float64]) -> PrefixTree:
    """Order the children of every node by compute density, highest first (5.2, algorithm 1).

    Ties keep the order that the children have. Requests that end at a node still come before its
    children. Nodes are renumbered, so annotate again for the totals of the sorted tree.

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
