"""The paged KV cache of the simulated engine, block by block.

Rules of vLLM's block pool (vllm/v1/core/block_pool.py and single_type_kv_cache_manager.py, 0.32):
a block is hashed, so that others may hit it, in the step that fills it; a freed request gives its
blocks back tail first; hashed free blocks wait in least-recently-freed order and keep their
content until they are taken; unhashed free blocks are taken before them.

Two kinds of blocks exist here. A *content* block holds prompt tokens that at least two requests
start with; it is counted by reference and may be hit by anyone. All other blocks are *private*:
only the same request could hit them, when it comes back after a preemption, so a count per request
is enough.

A request whose prompt ends with a content block computes that block even when it is resident,
because a hit ends before the last token: it then holds a *duplicate*. Hits go to the copy filled
first; when that one is evicted, the next copy takes its place. No request fills more than one
duplicate: only one request at a time is in the middle of its prompt, so whoever misses a block
finds all later ones missing too.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.kernels.scalars import scalars

NOW = np.dtype([("free", "i8"), ("unhashed", "i8")])
# Where the duplicate that a request filled is.
NO_DUPLICATE, HELD, PARKED = 0, 1, 2


class KvCache(NamedTuple):
    """State of the KV cache over c content blocks and n requests.

    Attributes:
        blocks: capacity in blocks.
        block_size: tokens per block.
        chain_ids, chain_offsets: content blocks at the start of each prompt; see `BlockChains`.
        cached: 1 where a content block is in the cache; int8 [c].
        references: running requests that hold it; int32 [c].
        following, preceding: the doubly linked list of free hashed blocks, least recently freed
            first. Entry b < c is a content block, c + r the private blocks of request r, c + n + r
            its duplicate, the last entry is both ends; int64 [c + 2 n + 1].
        parked: free hashed private blocks of each request; int32 [n].
        room: tokens that the blocks of each running request have room for; int32 [n].
        private_from: position in its prompt from which a request's blocks are its own: private, or
            a duplicate first and then private; int32 [n].
        duplicate: NO_DUPLICATE, HELD or PARKED, per request; int8 [n].
        newest_duplicate, next_duplicate: circular list of the requests that filled duplicates of a
            content block, those evicted since included: the one that filled last, -1 for none,
            leads to the one that filled first; int32 [c], int32 [n].
        now: blocks that are ``free``, and those of them that are ``unhashed``; one record.
    """

    blocks: int
    block_size: int
    chain_ids: NDArray[np.int32]
    chain_offsets: NDArray[np.int64]
    cached: NDArray[np.int8]
    references: NDArray[np.int32]
    following: NDArray[np.int64]
    preceding: NDArray[np.int64]
    parked: NDArray[np.int32]
    room: NDArray[np.int32]
    private_from: NDArray[np.int32]
    duplicate: NDArray[np.int8]
    newest_duplicate: NDArray[np.int32]
    next_duplicate: NDArray[np.int32]
    now: NDArray[np.void]


def empty_cache(
    blocks: int,
    block_size: int,
    chain_ids: NDArray[np.int32],
    chain_offsets: NDArray[np.int64],
    content_blocks: int,
) -> KvCache:
    """An empty cache of ``blocks`` blocks."""
    requests = len(chain_offsets) - 1
    entries = content_blocks + 2 * requests + 1
    links = np.full(entries, entries - 1, dtype=np.int64)
    return KvCache(
        blocks=blocks,
        block_size=block_size,
        chain_ids=chain_ids,
        chain_offsets=chain_offsets,
        cached=np.zeros(content_blocks, dtype=np.int8),
        references=np.zeros(content_blocks, dtype=np.int32),
        following=links,
        preceding=links.copy(),
        parked=np.zeros(requests, dtype=np.int32),
        room=np.zeros(requests, dtype=np.int32),
        private_from=np.zeros(requests, dtype=np.int32),
        duplicate=np.zeros(requests, dtype=np.int8),
        newest_duplicate=np.full(content_blocks, -1, dtype=np.int32),
        next_duplicate=np.zeros(requests, dtype=np.int32),
        now=scalars(NOW, free=blocks, unhashed=blocks),
    )


@kernel
def new_step(cache: KvCache) -> None:
    """A step begins; what was filled in the last one could be hit in it already."""


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
        if cache.cached[block] == 0:
            return hits, free_hits
        if cache.references[block] == 0:
            free_hits += 1
        hits += 1
    # Its private blocks were freed before its content, so they are evicted before it: what is
    # parked is within reach.
    own = cache.parked[request] if hits == chain else 0
    return hits + own, free_hits + own


@kernel
def look_up(cache: KvCache, request: int, known: int) -> tuple[int, int]:
    """Tokens that a waiting request would hit, and how many of their blocks are free."""
    hits, free_hits = cached_blocks(cache, request, known)
    return hits * cache.block_size, free_hits


@kernel
def cut(cache: KvCache, request: int, known: int, start: int, new: int, largest: int) -> int:
    """Tokens of a chunk of a prompt: attention takes it as it comes."""
    return new


@kernel
def enter(cache: KvCache, request: int, known: int, before: int, free_hits: int, new: int) -> bool:
    """Admit a request with its hits; False, and nothing changed, where its prompt does not fit.

    Args:
        cache: the cache.
        request: that waits.
        known: its prompt and generated tokens.
        before, free_hits: what `look_up` answers.
        new: tokens that it computes now.
    """
    hits = before // cache.block_size
    if -(-known // cache.block_size) - hits + free_hits > cache.now[0].free:
        return False
    hold_cached(cache, request, hits)
    allocate(cache, request, -(-(before + new) // cache.block_size) - hits)
    register(cache, request, before, before + new)
    return True


@kernel
def lacking(cache: KvCache, request: int, before: int, new: int, known: int, under_way: int) -> int:
    """Blocks that a running request needs for its next ``new`` tokens.

    Args:
        cache: the cache.
        request: of it.
        before, new: tokens computed before and in the step.
        known: prompt and generated tokens.
        under_way: of the tokens computed before, those that a step still needs in any case.
    """
    if before + new <= cache.room[request]:
        return 0
    return -(-(before + new - cache.room[request]) // cache.block_size)


@kernel
def supply(cache: KvCache, request: int, before: int, new: int, settled: int, blocks: int) -> None:
    """Give a running request the blocks that it lacks, which the caller has checked are free."""
    if blocks > 0:
        allocate(cache, request, blocks)
    if before < cache.private_from[request] * cache.block_size:
        register(cache, request, before, before + new)


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
            cache.now[0].free -= 1
        cache.references[block] += 1
    if hits > content:
        _unlink(cache, len(cache.cached) + request)
        cache.now[0].free -= cache.parked[request]
        cache.parked[request] = 0
    cache.room[request] = hits * cache.block_size
    cache.private_from[request] = chain


@kernel
def allocate(cache: KvCache, request: int, blocks: int) -> None:
    """Give ``blocks`` more blocks to a request; the caller has checked that they are free."""
    now = cache.now[0]
    now.free -= blocks
    cache.room[request] += blocks * cache.block_size
    unhashed = min(blocks, now.unhashed)
    now.unhashed -= unhashed
    end = len(cache.following) - 1
    private = len(cache.cached)
    duplicates = private + len(cache.parked)
    for _ in range(blocks - unhashed):
        oldest = cache.following[end]
        if oldest < private:
            _unlink(cache, oldest)
            _pass_on(cache, oldest)
        elif oldest < duplicates:
            cache.parked[oldest - private] -= 1
            if cache.parked[oldest - private] == 0:
                _unlink(cache, oldest)
        else:
            cache.duplicate[oldest - duplicates] = NO_DUPLICATE
            _unlink(cache, oldest)


@kernel
def _pass_on(cache: KvCache, block: int) -> None:
    """A content block is evicted: its oldest surviving duplicate takes its place."""
    while cache.newest_duplicate[block] >= 0:
        newest = cache.newest_duplicate[block]
        heir = cache.next_duplicate[newest]
        cache.next_duplicate[newest] = cache.next_duplicate[heir]
        if heir == newest:
            cache.newest_duplicate[block] = -1
        place = cache.duplicate[heir]
        cache.duplicate[heir] = NO_DUPLICATE
        if place == HELD:
            cache.references[block] = 1
            cache.private_from[heir] += 1
            return
        if place == PARKED:
            entry = len(cache.cached) + len(cache.parked) + heir
            _link_before(cache, block, entry)
            _unlink(cache, entry)
            return
    cache.cached[block] = 0


@kernel
def register(cache: KvCache, request: int, computed_before: int, computed_after: int) -> None:
    """Make the content blocks that a request fills in this step available to others."""
    first = computed_before // cache.block_size
    last = min(computed_after // cache.block_size, cache.private_from[request])
    start = cache.chain_offsets[request]
    for position in range(first, last):
        block = cache.chain_ids[start + position]
        if cache.cached[block] == 1:
            cache.private_from[request] = position
            cache.duplicate[request] = HELD
            newest = cache.newest_duplicate[block]
            if newest < 0:
                newest = request
            else:
                cache.next_duplicate[request] = cache.next_duplicate[newest]
            cache.next_duplicate[newest] = request
            cache.newest_duplicate[block] = request
            return
        cache.cached[block] = 1
        cache.references[block] = 1


@kernel
def release(cache: KvCache, request: int, computed: int) -> None:
    """Free all blocks of a request that has ``computed`` tokens in the cache."""
    full = computed // cache.block_size
    content = min(full, cache.private_from[request])
    unhashed = cache.room[request] // cache.block_size - full
    cache.now[0].free += unhashed
    cache.now[0].unhashed += unhashed
    end = len(cache.following) - 1
    own = full - content
    cache.now[0].free += own
    if cache.duplicate[request] == HELD:
        own -= 1
    if own > 0:
        cache.parked[request] = own
        _link_before(cache, len(cache.cached) + request, end)
    if cache.duplicate[request] == HELD:
        cache.duplicate[request] = PARKED
        _link_before(cache, len(cache.cached) + len(cache.parked) + request, end)
    start = cache.chain_offsets[request]
    for position in range(content - 1, -1, -1):
        block = cache.chain_ids[start + position]
        cache.references[block] -= 1
        if cache.references[block] == 0:
            cache.now[0].free += 1
            _link_before(cache, block, end)
    cache.room[request] = 0


@kernel
def _link_before(cache: KvCache, entry: int, after: int) -> None:
    before = cache.preceding[after]
    cache.following[before] = entry
    cache.preceding[entry] = before
    cache.following[entry] = after
    cache.preceding[after] = entry


@kernel
def _unlink(cache: KvCache, entry: int) -> None:
    before = cache.preceding[entry]
    after = cache.following[entry]
    cache.following[before] = after
    cache.preceding[after] = before
