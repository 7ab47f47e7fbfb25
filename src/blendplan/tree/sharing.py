"""How much of the prompts is shared."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.tree.prefix_tree import PrefixTree


def prefix_tokens_unique(tree: PrefixTree) -> int:
    """Prompt tokens of all requests with every shared prefix of the tree counted once."""
    segments = tree.depth[1:].astype(np.int64) - tree.depth[tree.parent[1:]]
    return int(segments.sum())


def optimal_sharing(tree: PrefixTree) -> float:
    """Optimal prefix sharing ratio: share of all prompt tokens that need not be computed.

    That is 1 - distinct tokens / prompt tokens, what a prefix cache that never evicts would save.
    Of a split tree, it is what the split has left.
    """
    tokens = int(tree.depth[tree.node_of].sum(dtype=np.int64))
    return 1.0 - prefix_tokens_unique(tree) / tokens if tokens else 0.0


def shared_prefix_tokens(tree: PrefixTree) -> NDArray[np.int32]:
    """Leading tokens of each prompt that another request of the tree starts with; int32 [n]."""
    alone = tree.request_end - tree.request_start == 1
    shared = np.where(alone, tree.depth[tree.parent], tree.depth)
    shared[0] = 0
    return shared[tree.node_of]


def divided_prompt_tokens(tree: PrefixTree) -> NDArray[np.float64]:
    """Prompt tokens of each request when a shared prefix is divided among those that share it.

    A segment of a node with k requests below it counts 1/k of its length for each of them, so the
    sum over all requests is `prefix_tokens_unique`; float64 [n].
    """
    return divided_tokens(tree)[tree.node_of]


def divided_tokens(tree: PrefixTree) -> NDArray[np.float64]:
    """`divided_prompt_tokens` of a request that ends at each node; float64 [m]."""
    return _divided(tree.parent, tree.depth, tree.request_end - tree.request_start)


@kernel
def _divided(
    parent: NDArray[np.int32], depth: NDArray[np.int32], requests: NDArray[np.int64]
) -> NDArray[np.float64]:
    share = np.zeros(len(parent))
    for v in range(1, len(parent)):
        share[v] = share[parent[v]] + (depth[v] - depth[parent[v]]) / requests[v]
    return share
