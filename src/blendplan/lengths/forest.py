"""`LengthForest`: the whole distribution of a length from features, by a survival forest."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.lengths.survival import Bins, bins_of, pooled

# A request goes left where its feature is at most the threshold; a leaf has no children, -1.
_NODE = np.dtype(
    [("feature", np.int32), ("threshold", np.float32), ("left", np.int32), ("right", np.int32)]
)
# Requests that are led through the trees together.
_ROWS = 1024


@dataclass(frozen=True)
class _Trees:
    """Nodes of all trees one after the other, and the samples in their leaves.

    Attributes:
        root: first node of each tree; int64 [trees + 1].
        node: records of `_NODE`; [nodes].
        leaf: samples of node v are ``place[leaf[v]:leaf[v + 1]]``; int64 [nodes + 1].
        place, share: bin of each, counted on where it is censored, and its share of the leaf.
    """

    root: NDArray[np.int64]
    node: NDArray[np.void]
    leaf: NDArray[np.int64]
    place: NDArray[np.int32]
    share: NDArray[np.float32]


class LengthForest:
    """A quantile regression forest that also learns from lengths that are only known to be longer.

    Trees split by the logarithm of the length (L. Breiman, "Random forests", 2001). What a request
    may become is what the samples in its leaves became, averaged over the trees (N. Meinshausen,
    "Quantile regression forests", 2006); where some are still running, by the product of the
    chances of not ending (R. Beran, "Nonparametric regression with randomly censored survival
    data", 1981). A little of the distribution of all samples is mixed in, and of a stated prior in
    that one, so that there is an answer beyond the longest sample that ended.

    Parameters:
        trees: how many.
        leaf_samples: fewest samples of a leaf; with many samples, a quarter of their square root.
        tried: share of the features that a split may choose from.
        pooled_samples: samples of a leaf that the distribution of all samples counts as: it says
            little beside a large leaf, so kinds that are sure of their length stay so.
        most_samples: samples that are learned from; of more, evenly chosen ones.
        tree_samples: most that one tree is grown from.

    Attributes:
        bins_: lengths that are told apart; b of them.
        pooled_: distribution of all samples over the bins.
        left_out_: distribution of each sample by the trees that it was left out of; float64 [k, b].
        samples_: which samples, in the order that `left_out_` has; int64 [k].
    """

    bins_: Bins
    pooled_: NDArray[np.float64]
    left_out_: NDArray[np.float64]
    samples_: NDArray[np.int64]

    def __init__(
        self,
        trees: int = 64,
        leaf_samples: int = 4,
        tried: float = 0.7,
        pooled_samples: float = 0.3,
        most_samples: int = 20_000,
        tree_samples: int = 4_000,
    ) -> None:
        self.trees = trees
        self.leaf_samples = leaf_samples
        self.tried = tried
        self.pooled_samples = pooled_samples
        self.most_samples = most_samples
        self.tree_samples = tree_samples

    def fit(
        self,
        features: NDArray[np.float32],
        tokens: NDArray[np.int64],
        weights: NDArray[np.float64],
        censored: NDArray[np.bool_],
    ) -> "LengthForest":
        """Learn from k >= 1 samples; their order does not matter.

        Args:
            features: float32 [k, f].
            tokens: length, at least 1, or where censored what it exceeds, at least 0; int64 [k].
            weights: requests that each stands for, over 0; float64 [k].
            censored: whether the length is only known to exceed that; bool [k].
        """
        order = np.lexsort((weights, tokens, censored, *features.T))
        if len(order) > self.most_samples:
            order = order[np.linspace(0, len(order) - 1, self.most_samples).astype(np.int64)]
        self.samples_ = order
        features, tokens = np.ascontiguousarray(features[order]), tokens[order]
        weights, censored = weights[order], censored[order]
        weights = weights / weights.mean()
        self.bins_ = bins_of(tokens, weights, censored)
        place = self.bins_.places(tokens, censored)
        self.pooled_ = pooled(self.bins_, place, weights)
        masses = np.tile(self.pooled_, (len(order), 1)) if censored.any() else None
        for _ in range(2 if censored.any() else 1):
            target = np.log(np.maximum(tokens, 1).astype(np.float64))
            if masses is not None:
                target[censored] = self.bins_.expected_beyond(
                    tokens[censored], masses[censored], logarithm=True
                )
            self._grow(features, target, weights, place)
            self.left_out_ = masses = self._masses(features, self._left_out)
        return self

    def masses(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of each bin for requests with these features; float64 [n, b]."""
        return self._masses(features, np.empty((0, 0), dtype=np.bool_))

    def _masses(
        self, features: NDArray[np.float32], only: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        forest, b = self._forest, len(self.bins_)
        masses = np.empty((len(features), b))
        _leaf_samples(
            features,
            only,
            forest.root,
            forest.node,
            forest.leaf,
            forest.place,
            forest.share,
            self.pooled_,
            self.pooled_samples,
            masses,
        )
        return masses

    def _grow(
        self,
        features: NDArray[np.float32],
        target: NDArray[np.float64],
        weights: NDArray[np.float64],
        place: NDArray[np.int64],
    ) -> None:
        """Grow the trees and put the samples into their leaves.

        Samples are drawn here rather than by scikit-learn's forests, which draw by weight from
        version 1.9 on and evenly before.
        """
        # Imported when needed: it takes a second.
        from sklearn.tree import DecisionTreeRegressor

        k = len(target)
        drawn_each = min(k, self.tree_samples)
        least = max(self.leaf_samples, round(drawn_each**0.5 / 4))
        rng = np.random.default_rng(0)
        drawn = [
            np.bincount(rng.integers(0, k, drawn_each), minlength=k) for _ in range(self.trees)
        ]

        def grown(number: int) -> Any:
            inside = np.flatnonzero(drawn[number])
            tree = DecisionTreeRegressor(
                min_samples_leaf=min(least, max(1, k // 4)),
                max_features=self.tried,
                random_state=number,
            )
            times = (drawn[number] * weights)[inside]
            return tree.fit(features[inside], target[inside], sample_weight=times).tree_

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            trees = list(pool.map(grown, range(self.trees)))
        parts: list[tuple[NDArray[Any], ...]] = []
        self._left_out = np.ones((self.trees, k), dtype=np.bool_)
        root = 0
        for number, tree in enumerate(trees):
            times = drawn[number] * weights
            inside = np.flatnonzero(times)
            self._left_out[number, inside] = False
            leaf = tree.apply(features[inside])
            by_leaf = np.lexsort((place[inside], leaf))
            inside, leaf = inside[by_leaf], leaf[by_leaf]
            total = np.bincount(leaf, times[inside], tree.node_count)
            parts.append(
                (
                    _nodes(tree, root),
                    np.bincount(leaf, minlength=tree.node_count),
                    place[inside].astype(np.int32),
                    (times[inside] / total[leaf]).astype(np.float32),
                )
            )
            root += tree.node_count
        node, size, places, share = (np.concatenate(x) for x in zip(*parts, strict=True))
        root_of = np.cumsum([0, *(len(part[0]) for part in parts)])
        self._forest = _Trees(root_of, node, np.append(0, np.cumsum(size)), places, share)


def _nodes(tree: Any, root: int) -> NDArray[np.void]:
    """Records of the nodes of one of scikit-learn's trees, the first of which has that number."""
    inner = tree.children_left >= 0
    node = np.zeros(tree.node_count, dtype=_NODE)
    node["feature"] = np.where(inner, tree.feature, 0)
    node["left"] = np.where(inner, tree.children_left + root, -1)
    node["right"] = np.where(inner, tree.children_right + root, -1)
    # Features are float32, so the next lower one parts them alike.
    threshold = tree.threshold.astype(np.float32)
    above = threshold > tree.threshold
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    node["threshold"] = threshold
    return node


@kernel
def _leaf_samples(
    features: NDArray[np.float32],
    only: NDArray[np.bool_],
    root: NDArray[np.int64],
    node: NDArray[np.void],
    leaf: NDArray[np.int64],
    place: NDArray[np.int32],
    share: NDArray[np.float32],
    pooled_masses: NDArray[np.float64],
    pooled_samples: float,
    masses: NDArray[np.float64],
) -> None:
    """Masses of each request by the samples in its leaves; `only` says which trees may speak."""
    n, b = masses.shape
    # As many rows at a time as stay in the processor's cache.
    shares = np.empty((_ROWS, 2 * b), dtype=np.float32)
    trees = np.empty(_ROWS)
    size = np.empty(_ROWS)
    for start in range(0, n, _ROWS):
        count = min(_ROWS, n - start)
        shares[:] = np.float32(0.0)
        trees[:] = 0.0
        size[:] = 0.0
        for tree in range(len(root) - 1):
            for row in range(count):
                if len(only) and not only[tree, start + row]:
                    continue
                v = root[tree]
                while node[v].left >= 0:
                    # Without a branch, which would be foreseen wrongly half of the time.
                    right = features[start + row, node[v].feature] > node[v].threshold
                    v = node[v].left + np.int64(right) * (node[v].right - node[v].left)
                trees[row] += 1.0
                size[row] += leaf[v + 1] - leaf[v]
                for i in range(leaf[v], leaf[v + 1]):
                    shares[row, place[i]] += share[i]
        for row in range(count):
            mean_size = size[row] / max(1.0, trees[row])
            pooled_share = pooled_samples / max(1.0, mean_size)
            _end_in_bins(shares[row], trees[row], pooled_masses, pooled_share, masses[start + row])


@kernel
def _end_in_bins(
    shares: NDArray[np.float32],
    trees: float,
    pooled_masses: NDArray[np.float64],
    pooled_share: float,
    masses: NDArray[np.float64],
) -> None:
    """Probability of each bin, by what ended in it of those that had come so far."""
    b = len(masses)
    scale = 1.0 / trees if trees > 0.0 else 0.0
    ending, censored, left_over = 0.0, 0.0, 0.0
    # What may still end in each bin, from the last one down.
    for j in range(b - 1, -1, -1):
        left_over += pooled_share * pooled_masses[j]
        ended = shares[j] * scale
        ending += ended
        risk = left_over + ending + censored
        hazard = (pooled_share * pooled_masses[j] + ended) / risk if risk > 0.0 else 1.0
        masses[j] = min(1.0, hazard)
        censored += shares[b + j] * scale
    alive = 1.0
    for j in range(b):
        hazard = masses[j]
        masses[j] = alive * hazard
        alive *= 1.0 - hazard
    masses[b - 1] += alive
