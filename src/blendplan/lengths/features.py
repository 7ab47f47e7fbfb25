"""`request_features`: what is known of each request before it runs, as numbers to learn from."""

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.words import word_features
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import shared_prefix_tokens

COMPONENTS = 16
"""Numbers that stand for the words of a prompt."""

# A request without max_tokens is one with a very large one.
_NO_CAP = 2**31 - 1


def request_features(requests: Requests, tree: PrefixTree) -> NDArray[np.float32]:
    """Features of n requests; float32 [n, 5 + COMPONENTS].

    Prompt length and ``max_tokens``, as logarithms; the place in the prefix tree; and the words of
    the prompt, see `word_features`. The place is told by the rank in depth-first order, in which
    every subtree is a stretch, by the depth of the prefix that is shared with any other request,
    and by the number of requests that share it. The same for a prompt wherever it stands among the
    requests.

    Args:
        requests: n requests.
        tree: of those, before any split.
    """
    n = len(requests)
    caps = np.where(requests.max_tokens < 0, _NO_CAP, requests.max_tokens)
    below = tree.request_end - tree.request_start
    # A prompt that ends where nobody else comes by shares what its parent stands for.
    sharers = np.where(below > 1, below, below[np.maximum(tree.parent, 0)])
    columns = (
        np.log(requests.prompt_tokens),
        np.log(caps),
        tree.request_start[tree.node_of] / n,
        np.log1p(shared_prefix_tokens(tree)),
        np.log(sharers[tree.node_of]),
    )
    features = np.empty((n, len(columns) + COMPONENTS), dtype=np.float32)
    for place, column in enumerate(columns):
        features[:, place] = column
    features[:, len(columns) :] = word_features(requests, tree, COMPONENTS)
    return features
