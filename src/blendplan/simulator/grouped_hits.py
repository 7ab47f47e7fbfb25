"""Prefix lookup in a `GroupedCache`: the longest beginning of a prompt that all groups have.

Rules of ``HybridKVCacheCoordinator.find_longest_cache_hit`` in
vllm/v1/core/kv_cache_coordinator.py and of each kind's own ``find_longest_cache_hit`` (vLLM 0.32).
"""

from blendplan.kernels.kernel import kernel
from blendplan.simulator.block_pool import find_content
from blendplan.simulator.grouped_cache import (
    IS_CHUNKED,
    IS_FULL,
    IS_SLIDING,
    GroupedCache,
    ceil_div,
    content_key,
)


@kernel
def cached_prefix(cache: GroupedCache, request: int, known: int) -> int:
    """Tokens that a waiting request of ``known`` tokens would hit; at least one is computed.

    The blocks are in ``cache.hits``, the junction is in ``cache.now``.
    """
    now = cache.now[0]
    now.junction = 0
    buckets = len(cache.order)
    if buckets == 1 and len(cache.groups) == 1:
        return _find(cache, request, 0, known - 1)
    first = cache.buckets[cache.order[0]]
    has_full = cache.groups[first].kind == IS_FULL
    length, longest = known - 1, 0
    rounds = 0
    while True:
        current = length
        for place in range(buckets):
            bucket = cache.order[place]
            group = cache.buckets[bucket]
            if rounds > 0 and cache.groups[group].kind == IS_FULL:
                hit = cache.hit_blocks[group] * cache.groups[group].tokens
                current = min(current, hit)
            else:
                current = _find(cache, request, bucket, current)
                longest = max(longest, current)
        rounds += 1
        shrunk = current < length
        length = current
        if not shrunk or (buckets == 2 and has_full):
            break
    for group in range(len(cache.groups)):
        if cache.groups[group].kind == IS_FULL:
            blocks = ceil_div(length, cache.groups[group].tokens)
            cache.hit_blocks[group] = min(cache.hit_blocks[group], blocks)
    if longest > length:
        now.junction = longest
    return length


@kernel
def _find(cache: GroupedCache, request: int, bucket: int, most: int) -> int:
    """Tokens, at most ``most``, that all groups of a bucket have."""
    group = cache.buckets[bucket]
    kind = cache.groups[group]
    blocks = most // kind.tokens
    if kind.kind == IS_FULL or kind.kind == IS_CHUNKED:
        length = 0
        if kind.kind == IS_CHUNKED:
            # What is before the chunk at hand counts as there.
            length = most // kind.reach * kind.reach // kind.tokens
            _skip(cache, bucket, 0, length)
        while length < blocks and _has(cache, request, bucket, length):
            length += 1
        length = _aligned(cache, length, kind.tokens)
    elif kind.kind == IS_SLIDING:
        length = _find_window(cache, request, bucket, _reachable(cache, request, blocks, group))
    else:
        length = 0
        for place in range(_reachable(cache, request, blocks, group) - 1, -1, -1):
            if (place + 1) * kind.tokens % cache.block_size == 0 and _has(
                cache, request, bucket, place
            ):
                _skip(cache, bucket, 0, place)
                length = place + 1
                break
    for member in range(group, cache.buckets[bucket + 1]):
        cache.hit_blocks[member] = length
    return length * kind.tokens


@kernel
def _reachable(cache: GroupedCache, request: int, blocks: int, group: int) -> int:
    """Blocks of a prompt that may be there at all: nobody has a request's own before it began."""
    if cache.begun[request] == 1:
        return blocks
    shared = cache.chain_offsets[request + 1] - cache.chain_offsets[request]
    return min(blocks, shared * cache.unit // cache.groups[group].tokens)


@kernel
def _find_window(cache: GroupedCache, request: int, bucket: int, blocks: int) -> int:
    """Blocks up to the rightmost end of a window that is all there, or of an unbroken beginning."""
    kind = cache.groups[cache.buckets[bucket]]
    needed = ceil_div(kind.reach - 1, kind.tokens)
    run = 0
    for place in range(blocks - 1, -1, -1):
        if run == 0 and (place + 1) * kind.tokens % cache.block_size != 0:
            continue
        if not _has(cache, request, bucket, place):
            run = 0
            continue
        run += 1
        if run >= needed:
            _skip(cache, bucket, 0, place)
            return place + run
    return _aligned(cache, run, kind.tokens)


@kernel
def _has(cache: GroupedCache, request: int, bucket: int, place: int) -> bool:
    """Whether all groups of a bucket have a block, which is then in ``cache.hits``."""
    group = cache.buckets[bucket]
    end = (place + 1) * cache.groups[group].tokens
    for member in range(group, cache.buckets[bucket + 1]):
        found = find_content(cache.pool, content_key(cache, request, member, end))
        if found < 0:
            return False
        cache.hits[member, place] = cache.pool.first[found]
    return True


@kernel
def _skip(cache: GroupedCache, bucket: int, first: int, end: int) -> None:
    """Blocks that a hit does not need."""
    for member in range(cache.buckets[bucket], cache.buckets[bucket + 1]):
        cache.hits[member, first:end] = 0


@kernel
def _aligned(cache: GroupedCache, blocks: int, tokens: int) -> int:
    """Blocks of ``tokens`` tokens each, in whole blocks of the scheduler."""
    return blocks * tokens // cache.block_size * cache.block_size // tokens
