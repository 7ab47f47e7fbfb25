"""The paged KV cache of the simulated engine, block by block.

Rules of vLLM's block pool (vllm/v1/core/block_pool.py and single_type_kv_cache_manager.py, 0.32):
a block is hashed, so that others may hit it, in the step that fills it; a freed request gives its
blocks back tail first; hashed free blocks wait in least-recently-freed order and keep their
content until they are taken; unhashed free blocks are taken before them.

Two kinds of blocks exist here. A *content* block holds prompt tokens that at least two requests
start with; it is counted by reference and may be hit by anyone. All other blocks are *private*:
only the same request could hit them, when it comes back after a preemption, so a count per request
is enough. A request that recomputes a content block which is resident already holds a private
duplicate; vLLM would let the duplicate answer hits once the original is evicted, this does not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernel import kernel

FREE, UNHASHED = 0, 1


class KvCache(NamedTuple):
    """State of the KV cache over c content blocks and n requests.

    Attributes:
        blocks: capacity in blocks.
        block_size: tokens per block.
        chain_ids, chain_offsets: content blocks at the start of each prompt; see `BlockChains`.
        resident: 1 where a content block is in the cache; int8 [c].
        references: running requests that hold it; int32 [c].
        following, preceding: the doubly linked list of free hashed blocks, least recently freed
            first. Entry b < c is a content block, c + r the private blocks of request r, the last
            entry is both ends; int64 [c + n + 1].
        parked: free hashed private blocks of each request; int32 [n].
        held: blocks that each running request holds; int32 [n].
        private_from: position in its prompt from which a request's blocks are private; int32 [n].
        counts: free blocks, and those of them that are unhashed; int64 [2].
    """

    blocks: int
    block_size: int
    chain_ids: NDArray[np.int32]
    chain_offsets: NDArray[np.int64]
    resident: NDArray[np.int8]
    references: NDArray[np.int32]
    following: NDArray[np.int64]
    preceding: NDArray[np.int64]
    parked: NDArray[np.int32]
    held: NDArray[np.int32]
    private_from: NDArray[np.int32]
    counts: NDArray[np.int64]


def empty_cache(
    blocks: int,
    block_size: int,
    chain_ids: NDArray[np.int32],
    chain_offsets: NDArray[np.int64],
    content_blocks: int,
) -> KvCache:
    """An empty cache of ``blocks`` blocks."""
    requests = len(chain_offsets) - 1
    entries = content_blocks + requests + 1
    links = np.full(entries, entries - 1, dtype=np.int64)
    return KvCache(
        blocks=blocks,
        block_size=block_size,
        chain_ids=chain_ids,
        chain_offsets=chain_offsets,
        resident=np.zeros(content_blocks, dtype=np.int8),
        references=np.zeros(content_blocks, dtype=np.int32),
        following=links,
        preceding=links.copy(),
        parked=np.zeros(requests, dtype=np.int32),
        held=np.zeros(requests, dtype=np.int32),
        private_from=np.zeros(requests, dtype=np.int32),
        counts=np.array([blocks, blocks], dtype=np.int64),
    )


@kernel
def cached_blocks(cache: KvCache, request: int, tokens: int) -> tuple[int, int]:
    """Blocks that a waiting request of ``tokens`` tokens would hit, and how many of them are free.

    At least one token is always computed, so a hit ends before the last token.
    """
    most = (tokens - 1) // cache.block_size
    start = cache.chain_offsets[request]
    chain = cache.chain_offsets[request + 1] - start
    hits = 0
    free_hits = 0
    while hits < min(chain, most):
        block = cache.chain_ids[start + hits]
        if cache.resident[block] == 0:
            return hits, free_hits
        if cache.references[block] == 0:
            free_hits += 1
        hits += 1
    own = _reachable_parked(cache, request, hits, chain, most)
    return hits + own, free_hits + own


@kernel
def _reachable_parked(cache: KvCache, request: int, hits: int, chain: int, most: int) -> int:
    """Parked private blocks that directly follow ``hits`` content hits."""
    if cache.parked[request] == 0 or hits < chain:
        return 0
    duplicates = chain - min(chain, cache.private_from[request])
    return max(0, min(cache.parked[request] - duplicates, most - chain))


@kernel
def hold_cached(cache: KvCache, request: int, hits: int) -> None:
    """Take ``hits`` cached blocks for an admitted request; it holds nothing else yet."""
    start = cache.chain_offsets[request]
    chain = cache.chain_offsets[request + 1] - start
    content = min(hits, chain)
    for position in range(content):
        block = cache.chain_ids[start + position]
        if cache.references[block] == 0:
            _unlink(cache, block)
            cache.counts[FREE] -= 1
        cache.references[block] += 1
    if cache.parked[request] > 0:
        # What is parked but out of reach can never be hit again: it is as good as unhashed.
        own = hits - content
        _unlink(cache, len(cache.resident) + request)
        cache.counts[FREE] -= own
        cache.counts[UNHASHED] += cache.parked[request] - own
        cache.parked[request] = 0
    cache.held[request] = hits
    cache.private_from[request] = chain


@kernel
def allocate(cache: KvCache, request: int, blocks: int) -> None:
    """Give ``blocks`` more blocks to a request; the caller has checked that they are free."""
    counts = cache.counts
    counts[FREE] -= blocks
    cache.held[request] += blocks
    unhashed = min(blocks, counts[UNHASHED])
    counts[UNHASHED] -= unhashed
    end = len(cache.following) - 1
    content_blocks = len(cache.resident)
    for _ in range(blocks - unhashed):
        oldest = cache.following[end]
        if oldest < content_blocks:
            cache.resident[oldest] = 0
            _unlink(cache, oldest)
        else:
            owner = oldest - content_blocks
            cache.parked[owner] -= 1
            if cache.parked[owner] == 0:
                _unlink(cache, oldest)


@kernel
def register(cache: KvCache, request: int, computed_before: int, computed_after: int) -> None:
    """Make the content blocks that a request fills in this step available to others."""
    first = computed_before // cache.block_size
    last = min(computed_after // cache.block_size, cache.private_from[request])
    start = cache.chain_offsets[request]
    for position in range(first, last):
        block = cache.chain_ids[start + position]
        if cache.resident[block] == 1:
            cache.private_from[request] = position
            return
        cache.resident[block] = 1
        cache.references[block] = 1


@kernel
def release(cache: KvCache, request: int, computed: int) -> None:
    """Free all blocks of a request that has ``computed`` tokens in the cache."""
    full = computed // cache.block_size
    content = min(full, cache.private_from[request])
    unhashed = cache.held[request] - full
    cache.counts[FREE] += unhashed
    cache.counts[UNHASHED] += unhashed
    if full > content:
        cache.parked[request] = full - content
        cache.counts[FREE] += full - content
        _link_newest(cache, len(cache.resident) + request)
    start = cache.chain_offsets[request]
    for position in range(content - 1, -1, -1):
        block = cache.chain_ids[start + position]
        cache.references[block] -= 1
        if cache.references[block] == 0:
            cache.counts[FREE] += 1
            _link_newest(cache, block)
    cache.held[request] = 0


@kernel
def _link_newest(cache: KvCache, entry: int) -> None:
    end = len(cache.following) - 1
    newest = cache.preceding[end]
    cache.following[newest] = entry
    cache.preceding[entry] = newest
    cache.following[entry] = end
    cache.preceding[end] = entry


@kernel
def _unlink(cache: KvCache, entry: int) -> None:
    before = cache.preceding[entry]
    after = cache.following[entry]
    cache.following[before] = after
    cache.preceding[after] = before
