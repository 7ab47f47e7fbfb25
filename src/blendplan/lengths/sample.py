"""A sample of the requests, and what it tells of the rest (paper 5.1)."""

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.arguments import number, whole
from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


def choose_sample(
    tree: PrefixTree, requests: Requests, fraction: float = 0.01, seed: int = 0
) -> NDArray[np.int64]:
    """Choose requests to run first, evenly over the prefix tree.

    The sample is divided among the main branches of the tree in proportion to the square root of
    their requests: a rare kind of request, which may well be the one with the longest outputs, is
    seen often enough to know its mean. Within a branch the sampling is systematic, in depth-first
    order from a random start, so every subtree gets its share, give or take one. Requests whose
    output length is known are not chosen.

    Args:
        tree: of the requests, before any split.
        requests: n requests.
        fraction: share of the requests whose output length is unknown, over 0 to 1.
        seed: of the random start.

    Returns:
        Indices of the chosen requests, rising, at least one; int64 [k].

    Raises:
        BlendplanError: ``fraction`` is out of range, or all output lengths are known.
    """
    try:
        fraction = number("fraction", fraction, 0.0, 1.0, above_least=True)
    except BlendplanError as error:
        raise BlendplanError(
            f"the sampled fraction must be over 0 and at most 1: {error}"
        ) from None
    seed = whole("seed", seed)
    unknown = tree.order[requests.output_tokens[tree.order] < 0]
    if not len(unknown):
        raise BlendplanError("every request states its output_tokens; there is nothing to sample")
    count = max(1, round(fraction * len(unknown)))
    start = np.random.default_rng(seed).random()
    branch = main_branches(tree)[unknown]
    order = np.argsort(branch, kind="stable")
    sizes = np.bincount(branch)
    sizes = sizes[sizes > 0]
    # Position of each request on a line on which every branch is as long as its share.
    share = branch_shares(sizes, count) / sizes
    line = np.concatenate([[0.0], np.cumsum(np.repeat(share, sizes))])
    line *= count / line[-1]
    places = np.searchsorted(line, np.arange(count) + start, side="right") - 1
    return np.sort(unknown[order[np.unique(np.clip(places, 0, len(unknown) - 1))]])


def main_branches(tree: PrefixTree) -> NDArray[np.int64]:
    """Main branch of each request: where the prompts first part; int64 [n].

    That is below the deepest node that all requests share. Branches with under one in ten thousand
    of them count as one.
    """
    size = tree.request_end - tree.request_start
    top = int(np.flatnonzero(size == len(tree))[-1])
    child = np.zeros(tree.node_count, dtype=np.bool_)
    child[1:] = tree.parent[1:] == top
    large = np.flatnonzero(child & (size >= max(2.0, 1e-4 * len(tree))))
    branch = np.zeros(len(tree), dtype=np.int64)
    for place, node in enumerate(large):
        branch[tree.order[tree.request_start[node] : tree.request_end[node]]] = place + 1
    return branch


def branch_shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Samples of each branch: by the square root of its size, but never more than it has."""
    share = np.zeros(len(sizes))
    open_branches = np.ones(len(sizes), dtype=np.bool_)
    while open_branches.any():
        roots = np.sqrt(sizes) * open_branches
        share[open_branches] = ((count - share[~open_branches].sum()) * roots / roots.sum())[
            open_branches
        ]
        full = open_branches & (share >= sizes)
        if not full.any():
            break
        share[full] = sizes[full]
        open_branches &= ~full
    return share
