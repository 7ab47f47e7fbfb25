"""A sample of the requests, and what it tells of the rest (paper 5.1)."""

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.kernel import kernel
from blendplan.lengths.lengths import Summary
from blendplan.lengths.quantiles import RangeQuantiles
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
    if not 0.0 < fraction <= 1.0:
        raise BlendplanError(f"the sampled fraction must be over 0 and at most 1, got {fraction}")
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
    for number, node in enumerate(large):
        branch[tree.order[tree.request_start[node] : tree.request_end[node]]] = number + 1
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


class SamplePredictor:
    """The mean of the sampled requests in the nearest subtree that has any (paper 5.1).

    Kept as what `ShrinkagePredictor` is measured against.

    A few samples say little of the spread. So the quantiles of a small subtree are those of the
    nearest one with enough samples, in proportion to the means.

    Parameters:
        mean_samples: fewest samples of a subtree whose mean is used.
        spread_samples: fewest samples of a subtree whose quantiles are used as they are.

    Attributes:
        summary_: mean and quantiles for a request that ends at each node, in tokens; [m].
    """

    summary_: Summary

    def __init__(self, mean_samples: int = 1, spread_samples: int = 10) -> None:
        self.mean_samples = mean_samples
        self.spread_samples = spread_samples

    def fit(
        self, tree: PrefixTree, rows: NDArray[np.int64], output_tokens: NDArray[np.int32]
    ) -> "SamplePredictor":
        """Learn from k sampled requests of the tree.

        Args:
            tree: m nodes over n requests, before any split.
            rows: the sampled requests, each once, k >= 1; int64 [k].
            output_tokens: their output lengths; int32 [k].
        """
        output = np.full(len(tree), -1, dtype=np.int64)
        output[rows] = output_tokens
        in_order = output[tree.order]
        sampled = in_order >= 0
        # The samples of a subtree follow each other in depth-first order.
        before = np.zeros(len(tree) + 1, dtype=np.int64)
        np.cumsum(sampled, out=before[1:])
        first, last = before[tree.request_start], before[tree.request_end]
        values = in_order[sampled]
        totals = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=totals[1:])
        count = last - first
        mean = (totals[last] - totals[first]) / np.maximum(count, 1)

        center = nearest_with(tree.parent, count, self.mean_samples)
        spread = nearest_with(tree.parent, count, max(self.mean_samples, self.spread_samples))
        ranges = RangeQuantiles(values.astype(np.float64))
        scale = mean[center] / mean[spread]
        pools, pool_of = np.unique(spread, return_inverse=True)
        p50, p90 = (
            ranges.quantile(q, first[pools], last[pools])[pool_of] * scale for q in (0.5, 0.9)
        )
        self.summary_ = Summary(mean[center], p50, p90)
        return self

    def predict(self, nodes: NDArray[np.int32]) -> Summary:
        """Mean and quantiles for requests that end at these nodes of the tree; int32 [n]."""
        mean, p50, p90 = self.summary_
        return Summary(mean[nodes], p50[nodes], p90[nodes])


@kernel
def nearest_with(
    parent: NDArray[np.int32], count: NDArray[np.int64], least: int
) -> NDArray[np.int32]:
    """Nearest node upwards, itself included, with a count of at least ``least``; else the root."""
    nearest = np.zeros(len(parent), dtype=np.int32)
    for v in range(1, len(parent)):
        nearest[v] = v if count[v] >= least else nearest[parent[v]]
    return nearest
