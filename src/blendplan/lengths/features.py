"""`request_features`: what is known of each request before it runs, as numbers to learn from."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.lengths.words import word_features
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

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
    rank, depth, sharers = _places(
        tree.parent, tree.depth, tree.request_start, tree.request_end, tree.node_of
    )
    caps = np.where(requests.max_tokens < 0, _NO_CAP, requests.max_tokens)
    columns = (np.log(requests.prompt_tokens), np.log(caps), rank / n, np.log1p(depth), sharers)
    features = np.empty((n, len(columns) + COMPONENTS), dtype=np.float32)
    for place, column in enumerate(columns):
        features[:, place] = column
    features[:, 4] = np.log(sharers)
    features[:, len(columns) :] = word_features(requests, tree, COMPONENTS)
    return features


@kernel
def _places(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    node_of: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For each request the first place of its node in depth-first order, and depth and requests of
    the deepest prefix that it shares; float64 [n] each.
    """
    n = len(node_of)
    rank, shared, sharers = np.empty(n), np.empty(n), np.empty(n)
    for request in range(n):
        v = node_of[request]
        rank[request] = start[v]
        if end[v] - start[v] == 1 and parent[v] >= 0:
            v = parent[v]
        shared[request] = depth[v]
        sharers[request] = end[v] - start[v]
    return rank, shared, sharers
