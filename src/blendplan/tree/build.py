"""`build_tree`: from prompts to the compressed prefix tree."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.requests.columns import Requests
from blendplan.tree.order import sorted_order
from blendplan.tree.prefix_tree import PrefixTree


def build_tree(requests: Requests) -> PrefixTree:
    """Compressed prefix tree of all prompts, children in lexicographic order of token ids.

    Every node but the root either branches or is the end of a prompt, so m <= 2 n + 1. Requests
    with the same prompt end in the same node, in input order.
    """
    order, shared = sorted_order(requests.token_ids, requests.offsets)
    return tree_of(order, shared, np.diff(requests.offsets)[order].astype(np.int32))


def tree_of(
    order: NDArray[np.int64], shared: NDArray[np.int32], lengths: NDArray[np.int32]
) -> PrefixTree:
    """The tree of prompts that are sorted already.

    Args:
        order, shared: as `sorted_order` returns them; [n].
        lengths: tokens of each prompt, in that order; int32 [n].
    """
    depth, start, end = _nodes(shared, lengths)
    parent = _parents(start, end)
    first_child, next_sibling = child_lists(parent)
    return PrefixTree(
        parent=parent,
        first_child=first_child,
        next_sibling=next_sibling,
        depth=depth,
        request_start=start,
        request_end=end,
        order=order,
        node_of=_end_nodes(order, start),
    )


@kernel
def _nodes(
    shared: NDArray[np.int32], lengths: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Depth and request range of every node, in depth-first order.

    Scans the sorted prompts from last to first with the open nodes on a stack. A node is written
    when it closes, after all its descendants and after the siblings to its right, so the written
    sequence read backwards is the depth-first order.
    """
    n = len(shared)
    depth = np.empty(2 * n + 1, dtype=np.int32)
    start = np.empty(2 * n + 1, dtype=np.int64)
    end = np.empty(2 * n + 1, dtype=np.int64)
    open_depth = np.empty(2 * n + 1, dtype=np.int32)
    open_end = np.empty(2 * n + 1, dtype=np.int64)
    open_depth[0], open_end[0] = 0, n
    top = 0
    at = 2 * n + 1
    for i in range(n - 1, -2, -1):
        # What prompt i shares with prompt i + 1 stays open, deeper nodes begin at i + 1.
        common = shared[i + 1] if 0 <= i < n - 1 else 0
        closed_end = np.int64(-1)
        while top > 0 and open_depth[top] > common:
            at -= 1
            closed_end = open_end[top]
            depth[at], start[at], end[at] = open_depth[top], i + 1, closed_end
            top -= 1
        if i < 0:
            break
        if open_depth[top] < common:
            top += 1
            open_depth[top], open_end[top] = common, closed_end
        if open_depth[top] < lengths[i]:
            top += 1
            open_depth[top], open_end[top] = lengths[i], i + 1
    at -= 1
    depth[at], start[at], end[at] = 0, 0, n
    return depth[at:].copy(), start[at:].copy(), end[at:].copy()


@kernel
def _parents(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int32]:
    """Parent of each node of a depth-first order, from nested request ranges."""
    parent = np.empty(len(start), dtype=np.int32)
    parent[0] = -1
    for v in range(1, len(start)):
        u = v - 1
        while end[u] <= start[v]:
            u = parent[u]
        parent[v] = u
    return parent


@kernel
def child_lists(parent: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """First child and next sibling of each node of a depth-first order; -1 where none."""
    first_child = np.full(len(parent), -1, dtype=np.int32)
    next_sibling = np.full(len(parent), -1, dtype=np.int32)
    for v in range(len(parent) - 1, 0, -1):
        next_sibling[v] = first_child[parent[v]]
        first_child[parent[v]] = v
    return first_child, next_sibling


@kernel
def _end_nodes(order: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.int32]:
    """Node at which each request ends: the last, so the deepest, whose range begins by its place.

    A prompt sorts before its extensions, so the requests that end at a node come first in its
    range, before those of its children.
    """
    node_of = np.empty(len(order), dtype=np.int32)
    for v in range(len(start)):
        stop = start[v + 1] if v + 1 < len(start) else len(order)
        for place in range(start[v], stop):
            node_of[order[place]] = v
    return node_of
