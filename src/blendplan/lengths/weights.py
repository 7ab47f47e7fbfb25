"""`sample_weights`: for how many requests each sampled one stands."""

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.protocol import stated_lengths
from blendplan.lengths.strata import Strata, strata_of
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


def sample_weights(
    requests: Requests, tree: PrefixTree, rows: NDArray[np.int64], strata: Strata | None = None
) -> NDArray[np.float64]:
    """For how many requests each sampled one stands, by post-stratification.

    A results file does not say how its requests were chosen. So requests are parted into kinds that
    depend on the requests alone, see `strata_of`, and the samples of a kind share its requests. For
    a sample by `choose_sample` that is the inverse of the probability with which each was chosen;
    it is also right for one that was chosen in another way, or that some requests of are missing,
    as far as within a kind it is as good as random. A kind without a sample is joined with the
    likest one. Estimates use these weights: a mean is ``(weights * x).sum() / weights.sum()``.

    Args:
        requests: n requests.
        tree: of those, before any split.
        rows: the sampled requests, each once, in any order, k >= 1; int64 [k].
        strata: of the requests, where they are at hand.

    Returns:
        Weights, each at least 1; float64 [k]. They sum to n, or where requests state a certain
        output length, to those that do not and the sampled ones that do.
    """
    strata = strata_of(requests, tree) if strata is None else strata
    counted = stated_lengths(requests) < 0
    counted[rows] = True
    sampled = np.bincount(strata.number[rows], minlength=len(strata))
    kind = strata.joined(sampled, 1)
    size = np.bincount(kind[strata.number[counted]])
    sampled = np.bincount(kind, sampled)
    weights: NDArray[np.float64] = (size / np.maximum(sampled, 1))[kind[strata.number[rows]]]
    return weights
