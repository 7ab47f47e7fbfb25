"""`ShrinkagePredictor`: a subtree leans on the one it is part of, the more the less it knows."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.lengths.bins import BinnedFactor
from blendplan.lengths.credibility import (
    Evidence,
    FloatArray,
    Moments,
    compare_groups,
    credibility,
)
from blendplan.lengths.nearest_subtree import nearest_with
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.quantiles import RangeQuantiles
from blendplan.tree.prefix_tree import PrefixTree

# A request without max_tokens is one with a very large one.
_NO_CAP = 2**31 - 1


class ShrinkagePredictor:
    """Hierarchical shrinkage along the prefix tree, with prompt length and ``max_tokens``.

    The mean of a node is n / (n + k) times that of its n samples plus k / (n + k) times what its
    parent lends it, from the root down. The strength k is the variance within subtrees over that
    between the children of a node, both estimated from the sample, see `credibility`: children that
    differ are believed with few samples, children that prompts parted into by chance hardly at all.
    Where too few samples share a child to tell, the node leans on the rest of its main branch, and
    that on a stated k. It is means that are shrunk, not means of logarithms, so that totals stay
    right.

    A subtree with many samples learns how lengths depend on prompt length and on ``max_tokens``,
    see `BinnedFactor`. A sample cut off by its ``max_tokens`` counts with the length it had: right
    for requests with the same cap, too short for others.

    Quantiles are those of the nearest subtree with enough samples, in proportion to the means, at
    the rank that a new length stays under with that probability.

    Samples that stand for many requests have as much of a say in every mean and quantile as those;
    how far a mean is believed follows from how many samples it is of.

    The defaults were chosen on MMLU, ShareGPT, BWB, Mooncake and GSM8K with samples of 1 and 5 %
    (benchmarks/length_prediction.py).

    Parameters:
        strength: k everywhere; None estimates it. 0 is the mean of the nearest subtree with a
            sample, as in the paper, and infinity that of all samples.
        typical_strength: k where samples do not tell.
        same_strength: the same for the requests of one prompt that is repeated.
        prior_samples: samples that the prior of an estimated variance counts as.
        spread_samples: fewest samples of a subtree whose quantiles are used as they are.
        group_samples: fewest samples of a subtree that learns from prompt length and caps.

    Attributes:
        mean_: expected length for each node and its depth, before ``max_tokens``; float64 [m].
        p50_, p90_: quantiles over the mean; float64 [m].
        group_: the subtree whose samples say what ``max_tokens`` does; int64 [m].
        caps_: what it does.
    """

    mean_: FloatArray
    p50_: FloatArray
    p90_: FloatArray
    group_: NDArray[np.int64]
    caps_: BinnedFactor

    def __init__(
        self,
        strength: float | None = None,
        *,
        typical_strength: float = 2.0,
        same_strength: float = 0.5,
        prior_samples: float = 4.0,
        spread_samples: int = 20,
        group_samples: int = 40,
    ) -> None:
        self.strength = strength
        self.typical_strength = typical_strength
        self.same_strength = same_strength
        self.prior_samples = prior_samples
        self.spread_samples = spread_samples
        self.group_samples = group_samples

    def fit(
        self,
        tree: PrefixTree,
        rows: NDArray[np.int64],
        output_tokens: NDArray[np.int32],
        max_tokens: NDArray[np.int32] | None = None,
        weights: FloatArray | None = None,
    ) -> "ShrinkagePredictor":
        """Learn from k sampled requests of the tree.

        Args:
            tree: m nodes over n requests, before any split.
            rows: the sampled requests, each once, k >= 1; int64 [k].
            output_tokens: their output lengths, at least 1; int32 [k].
            max_tokens: caps of the sampled requests, -1 where there is none; int32 [k].
            weights: for how many requests each sampled one stands, see `sample_weights`; float64
                [k], by default all alike.
        """
        output = np.zeros(len(tree), dtype=np.float64)
        output[rows] = output_tokens
        sampled = np.zeros(len(tree), dtype=np.bool_)
        sampled[rows] = True
        # The samples of a subtree follow each other in depth-first order.
        sampled_in_order = sampled[tree.order]
        before = np.concatenate([[0], np.cumsum(sampled_in_order)])
        first, last = before[tree.request_start], before[tree.request_end]
        count = last - first
        taken = tree.order[sampled_in_order]
        values = output[taken]
        stands_for = np.ones(len(tree))
        if weights is not None:
            stands_for[rows] = weights
        weight = stands_for[taken]
        nodes = tree.node_of[taken]

        self.group_ = nearest_with(tree.parent, count, self.group_samples).astype(np.int64)
        base = self._base(tree, count, weight, values, first, last)[nodes]
        depth = tree.depth.astype(np.int64)
        prompts = self._bins().fit(self.group_[nodes], depth[nodes], values / base, weight)
        by_prompt = prompts.predict(self.group_, depth)
        exposure = by_prompt[nodes]
        cap = np.full(len(tree), -1, dtype=np.int32)
        if max_tokens is not None:
            cap[rows] = max_tokens
        self.caps_ = self._bins().fit(
            self.group_[nodes], _caps(cap[taken]), values / (base * exposure), weight
        )
        by_cap = self.caps_.predict(self.group_[nodes], _caps(cap[taken]))
        leverage = prompts.leverage(self.group_[nodes], depth[nodes])
        leverage += self.caps_.leverage(self.group_[nodes], _caps(cap[taken]))
        leverage = np.minimum(0.5, leverage)
        exposure = exposure * by_cap

        ratio = values / exposure
        logs = np.log(ratio)
        sums = [_sums(x) for x in (weight * exposure, weight * values, logs, logs * logs)]
        exposures, lengths, log_lengths, squares = (x[last] - x[first] for x in sums)
        moments = Moments(count.astype(np.float64), log_lengths, squares)
        share = self._shares(tree, moments)
        self.mean_ = _top_down(tree.parent, count, exposures, lengths, share) * by_prompt

        pool = nearest_with(tree.parent, count, self.spread_samples)
        pools, pool_of = np.unique(pool, return_inverse=True)
        # A long sample has drawn the factors towards itself and looks shorter than it is.
        ranges = RangeQuantiles(
            ratio + np.maximum(0.0, ratio - base) * leverage / (1.0 - leverage), weight
        )
        self.p50_, self.p90_ = (
            (ranges.foretold(q, first[pools], last[pools]) * (exposures[pools] / lengths[pools]))[
                pool_of
            ]
            for q in (0.5, 0.9)
        )
        return self

    def predict(
        self, nodes: NDArray[np.int32], max_tokens: NDArray[np.int32] | None = None
    ) -> Lengths:
        """Mean and quantiles in tokens for requests that end at these nodes of the tree.

        Args:
            nodes: int32 [n].
            max_tokens: caps of the requests, -1 where there is none; int32 [n].
        """
        if max_tokens is None:
            max_tokens = np.full(len(nodes), -1, dtype=np.int32)
        mean = self.mean_[nodes] * self.caps_.predict(self.group_[nodes], _caps(max_tokens))
        return Lengths.log_normal(mean, mean * self.p50_[nodes], mean * self.p90_[nodes])

    def _bins(self) -> BinnedFactor:
        return BinnedFactor(bin_samples=self.group_samples // 4, prior_samples=self.prior_samples)

    def _base(
        self,
        tree: PrefixTree,
        count: NDArray[np.int64],
        weight: FloatArray,
        values: FloatArray,
        first: NDArray[np.int64],
        last: NDArray[np.int64],
    ) -> FloatArray:
        """Mean of the nearest subtree with some samples; bins are not there to tell them apart."""
        totals, weights = _sums(weight * values), _sums(weight)
        weighed = np.where(count > 0, weights[last] - weights[first], 1.0)
        mean = (totals[last] - totals[first]) / weighed
        base: FloatArray = mean[nearest_with(tree.parent, count, self.group_samples // 4)]
        return base

    def _shares(self, tree: PrefixTree, moments: Moments) -> FloatArray:
        """Share that its own samples have in each node's mean; float64 [m].

        Variances are those of logarithms: outputs of different tasks differ a thousandfold, and
        spread in proportion to their length. As plain numbers, the longest would decide how far all
        the others are trusted.
        """
        m = tree.node_count
        share = np.zeros(m)
        if self.strength is not None:
            weighed = np.maximum(moments.count + self.strength, 1e-300)
            share = np.where(moments.count > 0, moments.count / weighed, 0.0)
        elif m > 1:
            # The children of a node are two populations: prompts that go on, and equal prompts.
            population = tree.parent[1:] + m * (tree.first_child[1:] < 0)
            children = Moments(moments.count[1:], moments.total[1:], moments.squares[1:])
            evidence, within = compare_groups(children, population, 2 * m, self.prior_samples)
            ratio = self._ratio(tree, evidence)[population]
            share[1:] = credibility(children, ratio, within[population], self.prior_samples)
        return share

    def _ratio(self, tree: PrefixTree, evidence: Evidence) -> FloatArray:
        """1 / k of the children of each node that go on, and of those that do not; float64 [2m].

        Main branches differ by what is asked for, their own branches do not; so the evidence of a
        main branch is no prior of the node at which it begins.
        """
        m = tree.node_count
        whole = tree.request_end - tree.request_start == len(tree)
        branch = _branches(tree.parent, whole)
        branch = np.concatenate([branch, branch + m])
        prior = 1.0 / np.repeat([self.typical_strength, self.same_strength], m)
        below = Evidence(
            *(
                np.bincount(branch, values, 2 * m).astype(np.float64)
                for values in (evidence.between, evidence.weight)
            )
        ).ratio(prior, self.prior_samples)
        return evidence.ratio(
            np.where(np.concatenate([whole, whole]), prior, below[branch]), self.prior_samples
        )


def _sums(values: FloatArray) -> FloatArray:
    """Sums of the first i values, i from 0; float64 [k + 1]."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _caps(max_tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.where(max_tokens < 0, _NO_CAP, max_tokens).astype(np.int64)


@kernel
def _top_down(
    parent: NDArray[np.int32],
    count: NDArray[np.int64],
    exposure: NDArray[np.float64],
    total: NDArray[np.float64],
    share: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Each node's mean per exposure as far as its share goes; for the rest, what its parent lends.

    A parent lends the mean of its samples in which each counts as far as its child borrows. Were it
    the plain mean, children with long and scattered outputs would lose more than those with short
    ones gain, and totals would come out too small.
    """
    m = len(parent)
    lent_exposure = exposure.copy()
    lent_total = total.copy()
    for v in range(1, m):
        lent_exposure[parent[v]] -= share[v] * exposure[v]
        lent_total[parent[v]] -= share[v] * total[v]
    estimate = np.empty(m)
    lends = np.empty(m)
    estimate[0] = total[0] / exposure[0]
    for v in range(m):
        if count[v] == 0:
            estimate[v] = estimate[parent[v]]
            lends[v] = lends[parent[v]]
            continue
        mean = total[v] / exposure[v]
        # Nothing is lent where all children stand by themselves.
        lent = lent_exposure[v] > 1e-9 * exposure[v]
        lends[v] = lent_total[v] / lent_exposure[v] if lent else mean
        if v > 0:
            estimate[v] = share[v] * mean + (1.0 - share[v]) * lends[parent[v]]
            lends[v] = share[v] * lends[v] + (1.0 - share[v]) * lends[parent[v]]
    return estimate


@kernel
def _branches(parent: NDArray[np.int32], whole: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The node at which each node's main branch begins; nodes above all branches are their own."""
    branch = np.arange(len(parent))
    for v in range(1, len(parent)):
        if not whole[v] and not whole[parent[v]]:
            branch[v] = branch[parent[v]]
    return branch
