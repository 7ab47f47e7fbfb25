"""`block_chains`: the prompt blocks that requests have in common."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import shared_prefix_tokens


@dataclass(frozen=True)
class BlockChains:
    """Full prompt blocks that at least two requests start with, as dense ids.

    Attributes:
        chain_ids: block ids of all requests, one request after the other; two entries are equal
            if and only if the prompts are equal up to and including that block; int32 [total].
        chain_offsets: request r's blocks, from its first block on, are
            ``chain_ids[chain_offsets[r]:chain_offsets[r + 1]]``; int64 [n + 1].
        count: number of distinct ids, which are 0 to count - 1.
    """

    chain_ids: NDArray[np.int32]
    chain_offsets: NDArray[np.int64]
    count: int


def block_chains(tree: PrefixTree, requests: Requests, block_size: int) -> BlockChains:
    """List each request's shared blocks of ``block_size`` tokens.

    Only whole blocks within the prompt count, and only those that another request has too. A split
    hides sharing, so give the tree before any split; its order does not matter.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    blocks = shared_prefix_tokens(tree) // block_size
    offsets = offsets_of(blocks)
    ids, count = _fill(
        tree.parent, tree.depth, tree.request_start, tree.request_end, tree.order,
        offsets, block_size,
    )  # fmt: skip
    return BlockChains(ids, offsets, count)


@kernel
def _fill(
    parent: NDArray[np.int32],
    depth: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    order: NDArray[np.int64],
    offsets: NDArray[np.int64],
    block_size: int,
) -> tuple[NDArray[np.int32], int]:
    m = len(parent)
    ids = np.empty(offsets[-1], dtype=np.int32)
    # The chain down to the current node. Siblings write only beyond their parent's blocks, so in
    # depth-first order every ancestor's part is in place.
    path = np.empty(np.max(depth) // block_size, dtype=np.int32)
    count = 0
    for v in range(1, m):
        if end[v] - start[v] >= 2:
            for block in range(depth[parent[v]] // block_size, depth[v] // block_size):
                path[block] = count
                count += 1
        own_end = start[v + 1] if v + 1 < m else end[v]
        for i in range(start[v], own_end):
            at = offsets[order[i]]
            for block in range(offsets[order[i] + 1] - at):
                ids[at + block] = path[block]
    return ids, count
