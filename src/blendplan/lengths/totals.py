"""`total_interval`: how many output tokens there will be, and how sure a sample makes that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from blendplan.lengths.predicted import Total
from blendplan.lengths.protocol import stated_lengths
from blendplan.lengths.strata import Strata, strata_of
from blendplan.lengths.weights import sample_weights
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

_LEVEL = 0.9
# Variance of the outputs of a kind over the square of their mean where samples do not tell, and how
# many samples that counts as. Chosen on mixtures (benchmarks/sampling.py).
_PRIOR_VARIANCE = 2.0
_PRIOR_SAMPLES = 2.0


def total_interval(
    requests: Requests,
    tree: PrefixTree,
    rows: NDArray[np.int64],
    output_tokens: NDArray[np.integer[Any]],
    strata: Strata | None = None,
) -> Total:
    """Estimate the output tokens of all requests from some of them.

    The total is the sum of the samples times their `sample_weights`, and of what is certain
    beforehand. Its variance is that of a stratified sample without replacement (W. G. Cochran,
    "Sampling Techniques", 5.3), over kinds that are joined until each has two samples. A handful of
    samples of a kind whose outputs are mostly short and sometimes long will mostly agree; so twice
    the square of the mean of a kind counts as the variance of two samples more. The interval is
    Student's, with the degrees of freedom by Satterthwaite, on a logarithmic scale: a total cannot
    be negative, and is more often far too small than far too large.

    Args:
        requests: n requests.
        tree: of those, before any split.
        rows: sampled requests, each once, k >= 1; int64 [k].
        output_tokens: their output lengths, of each answer where they have several; int [k].
        strata: of the requests, where they are at hand.
    """
    strata = strata_of(requests, tree) if strata is None else strata
    weights = sample_weights(requests, tree, rows, strata)
    answers = np.ones(len(requests)) if requests.answers is None else requests.answers
    values = output_tokens.astype(np.float64) * answers[rows]
    stated = stated_lengths(requests)
    certain = stated >= 0
    certain[rows] = False
    estimated = float(weights @ values)

    sampled = np.bincount(strata.number[rows], minlength=len(strata))
    kind = strata.joined(sampled, 2)[strata.number[rows]]
    samples = np.bincount(kind).astype(np.float64)
    size = np.bincount(kind, weights)
    mean = np.bincount(kind, values) / samples
    apart = np.bincount(kind, (values - mean[kind]) ** 2)
    squares = apart + _PRIOR_SAMPLES * _PRIOR_VARIANCE * mean**2
    freedom = np.maximum(samples - 1.0, 0.0) + _PRIOR_SAMPLES
    parts = size * np.maximum(0.0, size - samples) / samples * squares / freedom
    variance = float(parts.sum())
    low = high = estimated
    if variance > 0.0:
        degrees = max(1.0, variance**2 / float((parts**2 / freedom).sum()))
        factor = float(stdtrit(degrees, 0.5 + _LEVEL / 2)) * np.sqrt(variance) / estimated
        # What has been seen is there.
        low = max(float(values.sum()), estimated * float(np.exp(-factor)))
        high = estimated * float(np.exp(min(factor, 50.0)))
    known = float((stated * answers)[certain].sum())
    return Total(len(requests), len(rows), known + estimated, known + low, known + high, _LEVEL)


def expected_error(weights: NDArray[np.float64]) -> float:
    """How far a total will be off at most, nine times in ten, before a sample has run.

    Args:
        weights: of the sample, see `sample_weights`; float64 [k].

    Returns:
        Share of the total, where outputs of a kind spread as much as they are long and kinds do not
        differ: a size of sample in words, no promise.
    """
    return float(stdtrit(1e6, 0.5 + _LEVEL / 2) * np.sqrt(weights @ (weights - 1)) / weights.sum())
