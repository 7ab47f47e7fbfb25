"""`tree_blocks`: the top of the prefix tree as nested blocks with their compute densities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.tree.annotate import NodeTotals
from blendplan.tree.prefix_tree import PrefixTree

_LEVELS = 4
# Narrower subtrees are drawn together: they could not be told apart.
_NARROWEST = 0.008


@dataclass(frozen=True)
class TreeBlock:
    """A node of the prefix tree, or several siblings that are too small to be drawn one by one.

    Attributes:
        level: 0 for the root.
        left, width: place in the picture, as shares of its width; the width is the share of all
            compute and memory time.
        nodes: how many siblings it stands for.
        requests: in the subtree.
        prefix_tokens: length of its own part of the prefix, 0 where it stands for several.
        density: compute over memory time of the subtree, shared prefixes computed once.
    """

    level: int
    left: float
    width: float
    nodes: int
    requests: int
    prefix_tokens: int
    density: float


def tree_blocks(tree: PrefixTree, totals: NodeTotals) -> tuple[TreeBlock, ...]:
    """Blocks of the first levels, siblings from compute-heavy to memory-heavy.

    Requests that end at an inner node are the gap beside its children.
    """
    compute_s = (1.0 - totals.sharing) * totals.compute_s
    demand_s = compute_s + totals.memory_s
    if not demand_s[0] > 0:
        return ()
    share = demand_s / demand_s[0]
    blocks: list[TreeBlock] = []
    # (node, level, left, scale): scale turns a node's demand into its width.
    waiting = [(0, 0, 0.0, 1.0)]
    while waiting:
        node, level, left, scale = waiting.pop()
        width = share[node] * scale
        above = int(tree.depth[tree.parent[node]]) if node else 0
        blocks.append(
            TreeBlock(
                level,
                left,
                width,
                1,
                int(totals.requests[node]),
                int(tree.depth[node]) - above,
                float(totals.density[node]),
            )
        )
        if level + 1 == _LEVELS:
            continue
        children = _children(tree, node)
        if not len(children):
            continue
        # A subtree by itself counts its whole prefix, so children may add up to more than their
        # parent: they are drawn to its width.
        inside = float(share[children].sum())
        scale = min(scale, width / inside) if inside > 0 else 0.0
        by_density = children[np.argsort(-totals.density[children], kind="stable")]
        wide = share[by_density] * scale >= _NARROWEST
        for child in by_density[wide]:
            waiting.append((int(child), level + 1, left, scale))
            left += float(share[child]) * scale
        narrow = by_density[~wide]
        if len(narrow):
            blocks.append(_together(narrow, level + 1, left, scale, share, compute_s, totals))
    return tuple(sorted(blocks, key=lambda block: (block.level, block.left)))


def _children(tree: PrefixTree, node: int) -> NDArray[np.int64]:
    """Children of a node; all nodes with that parent."""
    return np.flatnonzero(tree.parent == node)


def _together(
    nodes: NDArray[np.int64],
    level: int,
    left: float,
    scale: float,
    share: NDArray[np.float64],
    compute_s: NDArray[np.float64],
    totals: NodeTotals,
) -> TreeBlock:
    memory_s = float(totals.memory_s[nodes].sum())
    compute = float(compute_s[nodes].sum())
    return TreeBlock(
        level,
        left,
        float(share[nodes].sum()) * scale,
        len(nodes),
        int(totals.requests[nodes].sum()),
        0,
        compute / memory_s if memory_s > 0 else np.inf,
    )
