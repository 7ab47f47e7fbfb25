"""`annotate`: what each node's subtree holds and what it costs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import divided_prompt_tokens


@dataclass(frozen=True)
class NodeTotals:
    """Totals over the requests below each of the m nodes, those that end at it included.

    Attributes:
        requests: int64 [m].
        tokens: prompt tokens of all its requests; int64 [m].
        unique_tokens: the same with every shared prefix counted once, that from the root to the
            node included; int64 [m].
        shareable_tokens: the difference, what prefix caching can save if the subtree runs by
            itself; int64 [m].
        compute_s, memory_s: seconds of compute and of memory traffic of its requests, each by
            itself; float64 [m].
        sharing: share s of ``compute_s`` that prefix sharing saves in this tree, in [0, 1), the
            compute of a shared prefix being divided evenly among those that share it; float64 [m].
        density: compute density (1 - s) compute_s / memory_s, infinite without memory traffic;
            float64 [m].
    """

    requests: NDArray[np.int64]
    tokens: NDArray[np.int64]
    unique_tokens: NDArray[np.int64]
    shareable_tokens: NDArray[np.int64]
    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]
    sharing: NDArray[np.float64]
    density: NDArray[np.float64]


def annotate(
    tree: PrefixTree,
    prompt_tokens: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    *,
    output_tokens: NDArray[np.float64] | None = None,
) -> NodeTotals:
    """Totals and compute density of every node (paper 4.1 and 5.1).

    Dividing a shared prefix among its requests makes densities comparable at every level: that of
    a node is the mean of its children's by memory traffic, and the root's is the workload's.

    Args:
        tree: m nodes over n requests.
        prompt_tokens: int32 [n].
        compute_s, memory_s: demand of each request by itself in seconds; float64 [n].
        output_tokens: as in `token_seconds`; float64 [n].
    """
    token_s = token_seconds(prompt_tokens, compute_s, output_tokens)
    left_s = compute_left(tree, compute_s, token_s)
    tokens, unique, compute, memory, left = _totals(
        tree.parent,
        tree.depth,
        tree.order,
        tree.node_of,
        prompt_tokens,
        compute_s,
        memory_s,
        left_s,
    )
    return NodeTotals(
        requests=tree.request_end - tree.request_start,
        tokens=tokens,
        unique_tokens=unique,
        shareable_tokens=tokens - unique,
        compute_s=compute,
        memory_s=memory,
        sharing=1.0 - np.divide(left, compute, out=np.ones_like(left), where=compute > 0),
        density=compute_density(left, memory),
    )


def token_seconds(
    prompt_tokens: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    output_tokens: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Compute of each request per token in seconds; float64 [n].

    A request's compute is taken to be even over its tokens, as in Comp(r) = 2 (p + d) P /
    peak_flops. Without ``output_tokens`` all of it counts as the prompt's; the share s that sharing
    saves is then that of prompt tokens, the paper's prefix sharing ratio.
    """
    tokens = prompt_tokens if output_tokens is None else prompt_tokens + output_tokens
    seconds: NDArray[np.float64] = compute_s / np.maximum(tokens, 1)
    return seconds


def compute_left(
    tree: PrefixTree, compute_s: NDArray[np.float64], token_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute in seconds of each request when shared prefixes are divided; float64 [n]."""
    saved_tokens = tree.depth[tree.node_of] - divided_prompt_tokens(tree)
    left: NDArray[np.float64] = compute_s - token_s * saved_tokens
    return left


def compute_density(
    left_s: NDArray[np.float64], memory_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute left after sharing over memory traffic; infinite where there is no such traffic."""
    return np.divide(left_s, memory_s, out=np.full_like(left_s, np.inf), where=memory_s > 0)


@kernel
def _totals(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    order: NDArray[np.int64],
    node_of: NDArray[np.int32],
    prompt_tokens: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    left_s: NDArray[np.float64],
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
]:
    """Prompt tokens, unique tokens, compute, memory and compute left of every subtree."""
    m = len(parent)
    tokens = np.zeros(m, dtype=np.int64)
    unique = np.zeros(m, dtype=np.int64)
    compute = np.zeros(m)
    memory = np.zeros(m)
    left = np.zeros(m)
    # In depth-first order, so that the sums of a subtree do not depend on the numbering of others.
    for r in order:
        v = node_of[r]
        tokens[v] += prompt_tokens[r]
        compute[v] += compute_s[r]
        memory[v] += memory_s[r]
        left[v] += left_s[r]
    # A node's number is larger than its parent's, so backwards is bottom up.
    for v in range(m - 1, 0, -1):
        p = parent[v]
        tokens[p] += tokens[v]
        unique[p] += unique[v] + depth[v] - depth[p]
        compute[p] += compute[v]
        memory[p] += memory[v]
        left[p] += left[v]
        unique[v] += depth[v]
    return tokens, unique, compute, memory, left
