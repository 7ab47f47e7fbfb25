"""`annotate`: what each node's subtree holds and what it costs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel
from blendplan.tree.prefix_tree import PrefixTree


@dataclass(frozen=True)
class NodeTotals:
    """Totals over the requests below each of the m nodes, those that end at it included.

    A subtree is taken by itself: its requests' prefixes from the root count, once, and nothing
    outside it has been computed. So its figures stay the same when it is moved to the root.

    Attributes:
        requests: int64 [m].
        tokens: prompt tokens of all its requests; int64 [m].
        unique_tokens: the same with every shared prefix counted once; int64 [m].
        shareable_tokens: the difference, what prefix caching can save; int64 [m].
        compute_s, memory_s: seconds of compute and of memory traffic of its requests, each by
            itself; float64 [m].
        sharing: share s of ``compute_s`` that prefix sharing within the subtree saves, in [0, 1);
            float64 [m].
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

    A request's compute is spread evenly over its tokens, as in Comp(r) = 2 (p + d) P / peak_flops:
    a shared prefix saves, for every request but one, the prefix's part of the request's compute.

    Args:
        tree: m nodes over n requests.
        prompt_tokens: int32 [n].
        compute_s, memory_s: demand of each request by itself in seconds; float64 [n].
        output_tokens: output length of each request; float64 [n]. Without it all compute counts
            as the prompt's, and where that is the same for each prompt token, s is the share of
            prompt tokens, the paper's prefix sharing ratio.
    """
    total_tokens = prompt_tokens.astype(np.float64)
    if output_tokens is not None:
        total_tokens += output_tokens
    token_s = compute_s / np.maximum(total_tokens, 1.0)
    requests = tree.request_end - tree.request_start
    tokens, unique, compute, memory, saved = _totals(
        tree.parent,
        tree.depth,
        tree.request_start,
        tree.request_end,
        tree.order,
        prompt_tokens,
        compute_s,
        memory_s,
        token_s,
    )
    sharing = np.divide(saved, compute, out=np.zeros_like(saved), where=compute > 0)
    density = compute_density(sharing, compute, memory)
    return NodeTotals(requests, tokens, unique, tokens - unique, compute, memory, sharing, density)


def compute_density(
    sharing: NDArray[np.float64], compute_s: NDArray[np.float64], memory_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute density (1 - s) compute_s / memory_s; infinite where there is no memory traffic."""
    left_s = (1.0 - sharing) * compute_s
    return np.divide(left_s, memory_s, out=np.full_like(left_s, np.inf), where=memory_s > 0)


@kernel
def _totals(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    order: NDArray[np.int64],
    prompt_tokens: NDArray[np.int32],
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    token_s: NDArray[np.float64],
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
]:
    """Prompt tokens, unique tokens, compute, memory and saved compute of every subtree."""
    m = len(parent)
    tokens = np.zeros(m, dtype=np.int64)
    unique = np.zeros(m, dtype=np.int64)
    compute = np.zeros(m)
    memory = np.zeros(m)
    per_token = np.zeros(m)
    saved = np.zeros(m)
    # A node's number is larger than its parent's, so backwards is bottom up. Until the last line
    # of a node's turn, unique and saved leave out its own prefix.
    for v in range(m - 1, -1, -1):
        own_end = start[v + 1] if v + 1 < m else end[v]
        for i in range(start[v], own_end):
            r = order[i]
            tokens[v] += prompt_tokens[r]
            compute[v] += compute_s[r]
            memory[v] += memory_s[r]
            per_token[v] += token_s[r]
        others = (1.0 - 1.0 / (end[v] - start[v])) if end[v] > start[v] else 0.0
        if v > 0:
            p = parent[v]
            segment = depth[v] - depth[p]
            tokens[p] += tokens[v]
            unique[p] += unique[v] + segment
            compute[p] += compute[v]
            memory[p] += memory[v]
            per_token[p] += per_token[v]
            saved[p] += saved[v] + others * segment * per_token[v]
        unique[v] += depth[v]
        saved[v] += others * depth[v] * per_token[v]
    return tokens, unique, compute, memory, saved
