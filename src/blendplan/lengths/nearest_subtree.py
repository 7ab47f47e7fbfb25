"""`NearestSubtreePredictor`: the mean of the nearest subtree with a sample, as in the paper."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.quantiles import RangeQuantiles
from blendplan.tree.prefix_tree import PrefixTree


class NearestSubtreePredictor:
    """The mean of the sampled requests in the nearest subtree that has any (paper 5.1).

    Kept as what `lengths_from_prompts` is measured against.

    A few samples say little of the spread. So the quantiles of a small subtree are those of the
    nearest one with enough samples, in proportion to the means.

    Parameters:
        mean_samples: fewest samples of a subtree whose mean is used.
        spread_samples: fewest samples of a subtree whose quantiles are used as they are.

    Attributes:
        lengths_: mean and quantiles for a request that ends at each node, in tokens; [m].
    """

    lengths_: Lengths

    def __init__(self, mean_samples: int = 1, spread_samples: int = 10) -> None:
        self.mean_samples = mean_samples
        self.spread_samples = spread_samples

    def fit(
        self, tree: PrefixTree, rows: NDArray[np.int64], output_tokens: NDArray[np.int32]
    ) -> "NearestSubtreePredictor":
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
        self.lengths_ = Lengths.log_normal(mean[center], p50, p90)
        return self

    def predict(self, nodes: NDArray[np.int32]) -> Lengths:
        """Mean and quantiles for requests that end at these nodes of the tree; int32 [n]."""
        return self.lengths_.take(nodes)


@kernel
def nearest_with(
    parent: NDArray[np.int32], count: NDArray[np.int64], least: int
) -> NDArray[np.int32]:
    """Nearest node upwards, itself included, with a count of at least ``least``; else the root."""
    nearest = np.zeros(len(parent), dtype=np.int32)
    for v in range(1, len(parent)):
        nearest[v] = v if count[v] >= least else nearest[parent[v]]
    return nearest
