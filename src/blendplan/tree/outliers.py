"""Outliers of a sorted tree: what should stand outside its parent's range, and where."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel


class Groups(NamedTuple):
    """The g groups that may move; a group moves as one.

    A group is some neighbouring children of one node, or the leaf of the node itself, that all
    belong in the same gap between the children of the same node further up.

    Attributes:
        node: where the group is now; int32 [g].
        target: the ancestor of that node whose child the group would become; int32 [g].
        gain: work times distance by which the group would come closer to its ideal place; float64
            [g].
        items: how many children, or 1 for a leaf; int32 [g].
        is_leaf: whether the group is the node's own leaf; bool [g].
        of_child: the group to which a node belongs as a child, -1 where none; int32 [m].
        of_leaf: the group that a node's own leaf is, -1 where none; int32 [m].
        strict: False where moving the group would leave its node empty, bool [g].
    """

    node: NDArray[np.int32]
    target: NDArray[np.int32]
    gain: NDArray[np.float64]
    items: NDArray[np.int32]
    is_leaf: NDArray[np.bool_]
    of_child: NDArray[np.int32]
    of_leaf: NDArray[np.int32]
    strict: NDArray[np.bool_]


@kernel
def find_groups(
    parent: NDArray[np.int32],
    density: NDArray[np.float64],
    first: NDArray[np.int32],
    children: NDArray[np.int32],
    leaf_node: NDArray[np.int32],
    leaf_work: NDArray[np.float64],
    leaf_density: NDArray[np.float64],
    place: NDArray[np.float64],
    ideal: NDArray[np.float64],
) -> Groups:
    """Find the outliers of a sorted tree and where each would go.

    A child or leaf of a node is an outlier when its ideal place (the mean of its leaves', by work)
    is outside the node's range. Its target is the nearest ancestor whose range holds that place,
    and there it lands between the children by its density.

    The way up costs a step a node, so at most a step a prompt token in all.
    """
    m = len(parent)
    work = np.zeros(m)
    placed = np.zeros(m)
    ideals = np.zeros(m)
    begin = np.zeros(m)
    size = np.zeros(m, dtype=np.int32)
    leaf_of = np.full(m, -1, dtype=np.int32)
    done = 0.0
    leaf = 0
    for v in range(m):
        begin[v] = done
        if leaf < len(leaf_node) and leaf_node[leaf] == v:
            leaf_of[v] = leaf
            work[v] = leaf_work[leaf]
            placed[v] = leaf_work[leaf] * place[leaf]
            ideals[v] = leaf_work[leaf] * ideal[leaf]
            size[v] = 1
            done += leaf_work[leaf]
            leaf += 1
    for v in range(m - 1, 0, -1):
        work[parent[v]] += work[v]
        placed[parent[v]] += placed[v]
        ideals[parent[v]] += ideals[v]
        size[parent[v]] += 1

    most = m + len(leaf_node)
    node = np.empty(most, dtype=np.int32)
    target = np.empty(most, dtype=np.int32)
    gap = np.empty(most, dtype=np.int32)
    gain = np.zeros(most)
    items = np.zeros(most, dtype=np.int32)
    is_leaf = np.zeros(most, dtype=np.bool_)
    of_child = np.full(m, -1, dtype=np.int32)
    of_leaf = np.full(m, -1, dtype=np.int32)
    count = 0
    for v in range(1, m):
        joinable = False
        for child in range(first[v] - 1, first[v + 1]):
            # The node's own leaf comes before its children, which fall in density.
            if child < first[v]:
                leaf = leaf_of[v]
                if leaf < 0:
                    continue
                item_work, rho = leaf_work[leaf], leaf_density[leaf]
                item_placed, item_ideal = place[leaf], ideal[leaf]
            else:
                c = children[child]
                item_work, rho = work[c], density[c]
                if item_work > 0.0:
                    item_placed, item_ideal = placed[c] / item_work, ideals[c] / item_work
            a = v
            if item_work > 0.0:
                while a > 0 and not begin[a] <= item_ideal <= begin[a] + work[a]:
                    a = parent[a]
            if a == v:
                joinable = False
                continue
            low, high = first[a], first[a + 1]
            while low < high:
                middle = (low + high) // 2
                if density[children[middle]] < rho:
                    high = middle
                else:
                    low = middle + 1
            lands = begin[children[low]] if low < first[a + 1] else begin[a] + work[a]
            begins = begin[v] if child < first[v] else begin[children[child]]
            if lands > begins:
                lands -= item_work  # it leaves its old place, and what is between moves up
            moved = item_placed + (lands - begins)
            item_gain = item_work * (abs(item_placed - item_ideal) - abs(moved - item_ideal))
            # Less than rounding error is no gain.
            if item_gain <= 1e-12 * item_work:
                joinable = False
                continue
            if not (joinable and target[count - 1] == a and gap[count - 1] == low):
                node[count], target[count], gap[count] = v, a, low
                is_leaf[count] = child < first[v]
                count += 1
            gain[count - 1] += item_gain
            items[count - 1] += 1
            if child < first[v]:
                of_leaf[v] = count - 1
            else:
                of_child[children[child]] = count - 1
                joinable = True
    strict = items[:count] < size[node[:count]]
    return Groups(
        node[:count], target[:count], gain[:count], items[:count], is_leaf[:count],
        of_child, of_leaf, strict,
    )  # fmt: skip


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
