"""`split_tree`: outliers move up while that costs little sharing (5.2 and 5.4, algorithm 2).

How algorithm 2 is read here. Two scanners will read the leaves of the sorted tree from both ends,
so they should stand in falling order of compute density. They do not where a subtree holds leaves
of other densities than those of the place where the subtree as a whole was put. So, round by round:

1. Sort the tree, and find for each child of each node its ideal place in the order of all leaves.
   It is an outlier when that place is outside the range of its parent.
2. An outlier moves up to be a child of the nearest ancestor whose range holds its ideal place, most
   often the root, and the next sort puts it among that ancestor's children by its density. The
   price is the part of its prefix that it shared below there, which is computed once more.
   Neighbouring outliers that go to the same place go together and pay that price once.
3. Groups move in the order of what they gain per recomputed token, as long as the budget of tokens
   lasts; the gain is work times distance by which they come closer to their ideal places. Where
   one group is inside another, only the better one moves in this round.

The rounds end when the leaves are in order, when the budget is spent or no outlier fits what is
left of it, or when two rounds in a row have brought next to nothing.

The paper moves outliers to the root only. Nearer ancestors cost less, and they keep the method
working when all prompts begin with the same token, which leaves the root one child.
"""

import math

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.kernels.kernel import kernel
from blendplan.tree.annotate import token_seconds
from blendplan.tree.layout import children_of, lay_out, own_ends, sorted_with_nodes
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import divided_tokens, prefix_tokens_unique
from blendplan.tree.splitting.leaves import LeafDemand
from blendplan.tree.splitting.outliers import Groups, find_groups, independent

# In round k only groups move whose gain per token is at least GREED^k of the best one's: what moves
# shifts all the rest, and many a lesser outlier is none any more once the greater ones have gone.
GREED = 0.03
# Two rounds in a row that lessen the displacement of the leaves by less than this share end it.
PROGRESS = 0.02
PATIENCE = 2
# So does a budget of which no more than this share is left.
SCRAPS = 0.01


def split_tree(
    tree: PrefixTree,
    prompt_tokens: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    preserve: float = 0.99,
    *,
    output_tokens: NDArray[np.float64] | None = None,
) -> PrefixTree:
    """Sort the tree and split outliers off until its leaves fall in density.

    Args:
        tree: m nodes over n requests, not split before.
        prompt_tokens: int32 [n].
        compute_s, memory_s: demand of each request by itself in seconds; float64 [n].
        preserve: share of the shareable tokens that must stay shared, 0 to 1: at most
            ``(1 - preserve) * shareable`` prefix tokens are computed once more.
        output_tokens: as in `annotate`; float64 [n].

    Returns:
        The tree of the round with the least displaced leaves, sorted.

    Raises:
        BlendplanError: ``preserve`` is not between 0 and 1.
    """
    if not 0.0 <= preserve <= 1.0:
        raise BlendplanError(f"preserve must be between 0 and 1, got {preserve}")
    unique = prefix_tokens_unique(tree)
    budget = math.floor((1.0 - preserve) * (int(prompt_tokens.sum(dtype=np.int64)) - unique))
    token_s = token_seconds(prompt_tokens, compute_s, output_tokens)
    demand = LeafDemand(tree, compute_s, memory_s, token_s)

    best, least = tree, math.inf
    turn = stalled = 0
    while True:
        turn += 1
        density = demand.density(tree)
        tree, nodes = sorted_with_nodes(tree, density)
        leaves = demand.in_order(tree)
        displacement = leaves.displacement
        stalled = 0 if displacement < (1.0 - PROGRESS) * least else stalled + 1
        if displacement < least:
            best, least = tree, displacement
        left = budget - (prefix_tokens_unique(tree) - unique)
        if displacement == 0.0 or stalled == PATIENCE or left <= SCRAPS * budget:
            return best
        groups = find_groups(
            tree.parent,
            tree.depth,
            *children_of(tree.parent, np.arange(tree.node_count)),
            divided_tokens(tree),
            density[nodes],
            leaves,
        )
        chosen = _choice(tree, groups, left, GREED**turn)
        if not chosen.any():
            return best
        tree = _moved(tree, groups, chosen)


def _choice(tree: PrefixTree, groups: Groups, budget: int, least: float) -> NDArray[np.bool_]:
    """The groups to move, best gain per recomputed token first, within the budget; bool [g].

    Only groups that gain at least ``least`` times as much per token as the best move.
    """
    cost = tree.depth[groups.node].astype(np.int64) - tree.depth[groups.target]
    possible = groups.strict & (cost <= budget)
    worth = np.where(possible, groups.gain / cost, 0.0)
    free = independent(tree.parent, groups.node, groups.of_child, worth)
    free &= worth >= least * worth.max(initial=0.0)
    best_first = np.flatnonzero(free)
    best_first = best_first[np.argsort(-worth[best_first], kind="stable")]
    chosen = np.zeros(len(cost), dtype=np.bool_)
    chosen[best_first[np.cumsum(cost[best_first]) <= budget]] = True
    return chosen


def _moved(tree: PrefixTree, groups: Groups, chosen: NDArray[np.bool_]) -> PrefixTree:
    """The tree with the chosen groups moved, not sorted."""
    parent, depth, own_start, own_end = _regraft(
        tree.parent, tree.depth, tree.request_start, own_ends(tree), groups, chosen
    )
    siblings = np.arange(len(parent))
    return lay_out(parent, depth, own_start, own_end, tree.order, siblings)[0]


@kernel
def _regraft(
    old_parent: NDArray[np.int32],
    old_depth: NDArray[np.int32],
    old_own_start: NDArray[np.int64],
    old_own_end: NDArray[np.int64],
    groups: Groups,
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Parent, depth and own requests of every node after the move.

    A group of several children, or a leaf, gets a new node with the prefix of its old one. Nodes
    that are left empty go; those left with one child and no request of their own merge into it.
    """
    m = len(old_parent)
    most = m + np.sum(chosen)
    parent = np.empty(most, dtype=np.int32)
    depth = np.empty(most, dtype=np.int32)
    own_start = np.zeros(most, dtype=np.int64)
    own_end = np.zeros(most, dtype=np.int64)
    parent[:m], depth[:m] = old_parent, old_depth
    own_start[:m], own_end[:m] = old_own_start, old_own_end
    new_parent = np.empty(len(chosen), dtype=np.int32)
    total = m
    for g in range(len(chosen)):
        if not chosen[g]:
            continue
        new_parent[g] = groups.target[g]
        if groups.is_leaf[g] or groups.members[g] > 1:
            new_parent[g] = total
            v = groups.node[g]
            parent[total], depth[total] = groups.target[g], old_depth[v]
            if groups.is_leaf[g]:
                own_start[total], own_end[total] = own_start[v], own_end[v]
                own_end[v] = own_start[v]
            total += 1
    for v in range(1, m):
        g = groups.of_child[v]
        if g >= 0 and chosen[g]:
            parent[v] = new_parent[g]

    children = np.zeros(total, dtype=np.int32)
    for v in range(1, total):
        children[parent[v]] += 1
    gone = np.zeros(total, dtype=np.bool_)
    for v in range(m - 1, 0, -1):
        if own_start[v] == own_end[v] and children[v] <= 1:
            gone[v] = True
            if children[v] == 0:
                children[parent[v]] -= 1
    # Old nodes come after the ones above them and new nodes, which stay, last: so a parent that
    # goes has found its own lasting parent already.
    for v in range(1, total):
        if gone[parent[v]]:
            parent[v] = parent[parent[v]]
    # The nodes that stay move up and are renumbered; each is numbered before those below it.
    number = np.empty(total, dtype=np.int32)
    kept = 0
    for v in range(total):
        if gone[v]:
            continue
        number[v] = kept
        depth[kept], own_start[kept], own_end[kept] = depth[v], own_start[v], own_end[v]
        parent[kept] = parent[v]
        kept += 1
    for i in range(1, kept):
        parent[i] = number[parent[i]]
    return parent[:kept].copy(), depth[:kept].copy(), own_start[:kept].copy(), own_end[:kept].copy()
