"""Outliers of a sorted tree: what should stand outside its parent's range, and where."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.tree.splitting.leaves import (
    COLUMNS,
    IDEAL,
    LEFT,
    MEMORY,
    PLACE,
    REQUESTS,
    TOKEN,
    WORK,
    Leaves,
)


class Groups(NamedTuple):
    """The g groups that may move; a group moves as one.

    A group is some children of one node, or the leaf of the node itself, that would become children
    of the same node further up.

    Attributes:
        node: where the group is now; int32 [g].
        target: the ancestor of that node whose child the group would become; int32 [g].
        gain: work times distance by which its members would come closer to their ideal places;
            float64 [g].
        members: how many children, or 1 for a leaf; int32 [g].
        is_leaf: whether the group is the node's own leaf; bool [g].
        of_child: the group to which a node belongs as a child, -1 where none; int32 [m].
        strict: False where moving the group would leave its node empty, bool [g].
    """

    node: NDArray[np.int32]
    target: NDArray[np.int32]
    gain: NDArray[np.float64]
    members: NDArray[np.int32]
    is_leaf: NDArray[np.bool_]
    of_child: NDArray[np.int32]
    strict: NDArray[np.bool_]


class Subtrees(NamedTuple):
    """What `find_groups` knows of every node of the sorted tree.

    Attributes:
        parent, depth: of the tree; int32 [m].
        first, children: from `children_of`.
        divided: prompt tokens that a request ending at the node bears, shared ones divided;
            float64 [m].
        density: compute density of the node at the same place in ``children``; float64 [m].
        sums: columns of `Leaves.sums` over the subtree; float64 [m, 7].
        begin: place at which the subtree begins; float64 [m].
        items: children, and one for an own leaf; int32 [m].
        leaf: the node's own leaf, -1 where none; int32 [m].
    """

    parent: NDArray[np.int32]
    depth: NDArray[np.int32]
    first: NDArray[np.int32]
    children: NDArray[np.int32]
    divided: NDArray[np.float64]
    density: NDArray[np.float64]
    sums: NDArray[np.float64]
    begin: NDArray[np.float64]
    items: NDArray[np.int32]
    leaf: NDArray[np.int32]


@kernel
def find_groups(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    first: NDArray[np.int32],
    children: NDArray[np.int32],
    divided: NDArray[np.float64],
    density: NDArray[np.float64],
    leaves: Leaves,
) -> Groups:
    """Find the outliers of a sorted tree, and which of them would go where together.

    A child or leaf of a node is an outlier when its ideal place (the mean of its leaves', by work)
    is outside the node's range. Its target is the nearest ancestor whose range holds that place;
    there it would land between the children by the density it would have there. An outlier joins
    the group before it when both have the same target and it gains where that group would land.

    The way up costs a step a node, so at most a step a prompt token in all. Arguments as in
    `Subtrees` and `Leaves`.
    """
    tree = _subtrees(parent, depth, first, children, divided, density, leaves)
    most = len(parent) + len(leaves.node)
    node = np.empty(most, dtype=np.int32)
    target = np.empty(most, dtype=np.int32)
    gain = np.empty(most)
    members = np.empty(most, dtype=np.int32)
    is_leaf = np.zeros(most, dtype=np.bool_)
    strict = np.empty(most, dtype=np.bool_)
    of_child = np.full(len(parent), -1, dtype=np.int32)
    together = np.empty(len(parent), dtype=np.int32)
    group = np.zeros((1, COLUMNS))
    count = 0
    for v in range(1, len(parent)):
        leaf = tree.leaf[v]
        # A node that is nothing but a leaf moves as a child of its parent.
        a = _target(tree, v, leaves.sums, leaf) if leaf >= 0 and tree.items[v] > 1 else v
        if a != v:
            lands = _landing(tree, v, a, leaves.sums, leaf)
            own_gain = _gain(leaves.sums, leaf, tree.begin[v], lands)
            if own_gain > 0.0:
                node[count], target[count], gain[count] = v, a, own_gain
                members[count], is_leaf[count], strict[count] = 1, True, True
                count += 1
        group_target = v
        size = 0
        # One turn more than there are children, to close the last group.
        for i in range(first[v], first[v + 1] + 1):
            c = children[i] if i < first[v + 1] else v
            a = _target(tree, v, tree.sums, c) if c != v else v
            if c != v and a == v:
                continue
            if a == group_target and c != v:
                _add(group, tree.sums, c, 1.0)
                lands = _landing(tree, v, a, group, 0) + group[0, WORK] - tree.sums[c, WORK]
                if _gain(tree.sums, c, tree.begin[c], lands) > 0.0:
                    together[size] = c
                    size += 1
                    continue
                _add(group, tree.sums, c, -1.0)
            if size > 0:
                lands = _landing(tree, v, group_target, group, 0)
                group_gain = 0.0
                for k in range(size):
                    u = together[k]
                    group_gain += _gain(tree.sums, u, tree.begin[u], lands)
                    lands += tree.sums[u, WORK]
                if group_gain > 0.0:
                    for k in range(size):
                        of_child[together[k]] = count
                    node[count], target[count], gain[count] = v, group_target, group_gain
                    members[count], strict[count] = size, tree.items[v] > size
                    count += 1
            group_target = v
            size = 0
            if c != v:
                lands = _landing(tree, v, a, tree.sums, c)
                if _gain(tree.sums, c, tree.begin[c], lands) > 0.0:
                    group_target = a
                    group[0] = 0.0
                    _add(group, tree.sums, c, 1.0)
                    together[0] = c
                    size = 1
    return Groups(
        node[:count], target[:count], gain[:count], members[:count], is_leaf[:count],
        of_child, strict[:count],
    )  # fmt: skip


@kernel
def _add(group: NDArray[np.float64], sums: NDArray[np.float64], row: int, times: float) -> None:
    for column in range(COLUMNS):
        group[0, column] += times * sums[row, column]


@kernel
def _subtrees(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    first: NDArray[np.int32],
    children: NDArray[np.int32],
    divided: NDArray[np.float64],
    density: NDArray[np.float64],
    leaves: Leaves,
) -> Subtrees:
    m = len(parent)
    sums = np.zeros((m, COLUMNS))
    begin = np.zeros(m)
    items = np.zeros(m, dtype=np.int32)
    leaf = np.full(m, -1, dtype=np.int32)
    done = 0.0
    next_leaf = 0
    for v in range(m):
        begin[v] = done
        items[v] = first[v + 1] - first[v]
        if next_leaf < len(leaves.node) and leaves.node[next_leaf] == v:
            leaf[v] = next_leaf
            for column in range(COLUMNS):
                sums[v, column] = leaves.sums[next_leaf, column]
            items[v] += 1
            done += leaves.sums[next_leaf, WORK]
            next_leaf += 1
    for v in range(m - 1, 0, -1):
        for column in range(COLUMNS):
            sums[parent[v], column] += sums[v, column]
    return Subtrees(
        parent, depth, first, children, divided, density[children], sums, begin, items, leaf
    )


@kernel
def _target(tree: Subtrees, node: int, sums: NDArray[np.float64], row: int) -> int:
    """Nearest node upwards whose range holds an item's ideal place."""
    a = node
    if sums[row, WORK] > 0.0:
        ideal = sums[row, IDEAL] / sums[row, WORK]
        while a > 0 and not tree.begin[a] <= ideal <= tree.begin[a] + tree.sums[a, WORK]:
            a = tree.parent[a]
    return a


@kernel
def _landing(tree: Subtrees, node: int, target: int, sums: NDArray[np.float64], row: int) -> float:
    """Place at which an item would begin if it moved from below a node to below a target."""
    alone_tokens = (tree.depth[node] - tree.depth[target]) / sums[row, REQUESTS]
    more_tokens = tree.divided[target] + alone_tokens - tree.divided[node]
    left = sums[row, LEFT] + sums[row, TOKEN] * more_tokens
    density = left / sums[row, MEMORY] if sums[row, MEMORY] > 0.0 else np.inf
    low, high = tree.first[target], tree.first[target + 1]
    while low < high:
        middle = (low + high) // 2
        if tree.density[middle] < density:
            high = middle
        else:
            low = middle + 1
    place: float = tree.begin[target] + tree.sums[target, WORK]
    if low < tree.first[target + 1]:
        place = tree.begin[tree.children[low]]
    # To the right of where it was, all that is in between moves up.
    if place > tree.begin[node]:
        place -= sums[row, WORK]
    return place


@kernel
def _gain(sums: NDArray[np.float64], row: int, begins: float, lands: float) -> float:
    """Work times distance by which an item comes closer to its ideal place."""
    before = abs(sums[row, PLACE] - sums[row, IDEAL])
    after = abs(sums[row, PLACE] + (lands - begins) * sums[row, WORK] - sums[row, IDEAL])
    gain: float = before - after
    # Less than rounding error is no gain.
    return gain if gain > 1e-12 * sums[row, WORK] else 0.0


@kernel
def independent(
    parent: NDArray[np.int32],
    node: NDArray[np.int32],
    of_child: NDArray[np.int32],
    worth: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Groups of positive worth that neither lie in a better group nor hold one; bool [g].

    The best group of all is always among them.
    """
    m = len(parent)
    within = np.zeros(m)  # the best group whose node is in the subtree
    for g in range(len(node)):
        within[node[g]] = max(within[node[g]], worth[g])
    for v in range(m - 1, 0, -1):
        within[parent[v]] = max(within[parent[v]], within[v])
    free = worth > 0.0
    around = np.zeros(m)  # the best group that would move the node along
    for v in range(1, m):
        around[v] = around[parent[v]]
        if of_child[v] >= 0:
            around[v] = max(around[v], worth[of_child[v]])
            if within[v] > worth[of_child[v]]:
                free[of_child[v]] = False
    for g in range(len(node)):
        if worth[g] <= around[node[g]]:
            free[g] = False
    return free
