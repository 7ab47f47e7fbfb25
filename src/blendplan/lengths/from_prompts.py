"""`lengths_from_prompts`: lengths of all requests from those of some, by what the prompts say."""

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.features import request_features
from blendplan.lengths.learner import LengthLearner
from blendplan.lengths.predicted import Lengths
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


def lengths_from_prompts(
    requests: Requests,
    tree: PrefixTree,
    rows: NDArray[np.int64],
    output_tokens: NDArray[np.int32],
    weights: NDArray[np.float64] | None = None,
) -> Lengths:
    """Learn from k requests, predict all n; see `request_features` and `LengthLearner`.

    Args:
        requests: n requests.
        tree: of those, before any split.
        rows: requests whose output length is known, each once, k >= 1; int64 [k].
        output_tokens: their output lengths, at least 1; int32 [k].
        weights: requests that each stands for; float64 [k]. All alike if None.
    """
    features = request_features(requests, tree)
    tokens, cut_off = ended_or_cut_off(output_tokens, requests.max_tokens[rows])
    learner = LengthLearner().fit(features[rows], tokens, weights, cut_off)
    return learner.predict(features)


def ended_or_cut_off(
    output_tokens: NDArray[np.int32], max_tokens: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What outputs that were cut off at a cap tell of lengths without one.

    Args:
        output_tokens: int32 [k].
        max_tokens: caps, -1 where there is none; int32 [k].

    Returns:
        the length, or where it was cut off what it exceeds, int64 [k]; and whether it was, bool
        [k]. An output as long as its cap would have been as long or longer.
    """
    cut_off = (max_tokens >= 0) & (output_tokens >= max_tokens)
    return output_tokens.astype(np.int64) - cut_off, cut_off
