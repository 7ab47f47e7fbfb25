"""What the engine asks of a `GroupedCache` in a step; the same as of a `KvCache`.

Rules of ``KVCacheManager.allocate_slots`` in vllm/v1/core/kv_cache_manager.py (0.32): a request is
admitted when the blocks of its whole prompt are free, of a window no more than it will ever hold;
then, and in each later step, it gives back what is behind its windows and gets what its new tokens
need.
"""

from blendplan.kernels.kernel import kernel
from blendplan.simulator.block_pool import hold_block
from blendplan.simulator.grouped_cache import (
    IS_CHUNKED,
    IS_SLIDING,
    IS_STATE,
    GroupedCache,
    ceil_div,
    extend,
    fill,
    give_back,
    needed_blocks,
    passed_tokens,
    release_table,
)
from blendplan.simulator.grouped_hits import cached_prefix
from blendplan.simulator.states import (
    aligned_chunk,
    checkpoint,
    extend_states,
    fill_states,
    give_back_states,
    has_more_states,
    needed_states,
)


@kernel
def new_step(cache: GroupedCache) -> None:
    """A step begins: states that were filled in the last one may be hit."""
    cache.now[0].step += 1


@kernel
def look_up(cache: GroupedCache, request: int, known: int) -> tuple[int, int]:
    """Tokens that a waiting request would hit; the second number is for `KvCache` alone."""
    return cached_prefix(cache, request, known), 0


@kernel
def cut(cache: GroupedCache, request: int, known: int, start: int, new: int, largest: int) -> int:
    """Tokens of a chunk of a prompt, at most ``new``; see `aligned_chunk`."""
    if cache.now[0].states == 0:
        return new
    seat = cache.seat[request]
    junction = cache.now[0].junction if seat < 0 else cache.junction[seat]
    return aligned_chunk(cache, request, junction, known, start, new, largest)


@kernel
def enter(
    cache: GroupedCache, request: int, known: int, before: int, free_hits: int, new: int
) -> bool:
    """Admit a request with its hits; False, and nothing changed, where blocks are lacking."""
    if _needed(cache, request, known, known, before, True) > cache.now[0].free:
        return False
    if _needed(cache, request, known, before + new, before, False) > cache.now[0].free:
        return False
    now = cache.now[0]
    now.seats -= 1
    seat = cache.seats[now.seats]
    for group in range(len(cache.groups)):
        _hold(cache, request, seat, group, before, before + new, known)
    cache.seat[request] = seat
    cache.begun[request] = 1
    cache.junction[seat] = now.junction
    _extend_and_fill(cache, request, seat, before + new, before + new)
    _under_way(cache, seat, new)
    return True


@kernel
def lacking(
    cache: GroupedCache, request: int, before: int, new: int, known: int, under_way: int
) -> int:
    """Blocks that a running request needs for its next ``new`` tokens.

    Those behind its windows are given back first. A step that is under way still needs them.
    """
    seat = cache.seat[request]
    settled = before - under_way
    if cache.under_way[seat, 1] == cache.now[0].step - 1:
        settled = max(0, before - cache.under_way[seat, 0])
    for group in range(len(cache.groups)):
        if cache.groups[group].kind == IS_STATE:
            give_back_states(cache, seat, group, settled)
        else:
            give_back(cache, seat, group, settled)
    return _needed(cache, request, known, before + new, before, False)


@kernel
def supply(
    cache: GroupedCache, request: int, before: int, new: int, settled: int, blocks: int
) -> None:
    """Give a running request the blocks that it lacks, which the caller has checked are free.

    Args:
        cache: the cache.
        request: of it.
        before, new: tokens computed before and in the step.
        settled: of both together, those whose next token is known.
        blocks: how many it lacks.
    """
    seat = cache.seat[request]
    _extend_and_fill(cache, request, seat, before + new, settled)
    _under_way(cache, seat, new)
    cache.room[request] = _quiet_tokens(cache, seat, before + new)


@kernel
def _quiet_tokens(cache: GroupedCache, seat: int, tokens: int) -> int:
    """How long a request of so many tokens may be until something happens to its blocks.

    It needs another one, or has one behind a window, or fills a block of the scheduler.
    """
    most = (tokens // cache.block_size + 1) * cache.block_size - 1
    for group in range(len(cache.groups)):
        kind, table = cache.groups[group], cache.table[seat, group]
        most = min(most, table.length * kind.tokens)
        next_gone = (table.gone + 1) * kind.tokens
        if kind.kind == IS_SLIDING:
            most = min(most, kind.reach + next_gone - 1)
        elif kind.kind == IS_CHUNKED:
            most = min(most, ceil_div(next_gone, kind.reach) * kind.reach)
        elif kind.kind == IS_STATE and has_more_states(cache, seat, group):
            return tokens
    return most


@kernel
def release(cache: GroupedCache, request: int, computed: int) -> None:
    """Give back all blocks of a request of which so many tokens are computed."""
    seat = cache.seat[request]
    tokens = _in_step(cache, computed)
    for group in range(len(cache.groups)):
        fill(cache, request, seat, group, tokens)
    for group in range(len(cache.groups)):
        release_table(cache, seat, group)
    cache.seat[request] = -1
    cache.room[request] = 0
    now = cache.now[0]
    cache.seats[now.seats] = seat
    now.seats += 1


@kernel
def _needed(
    cache: GroupedCache, request: int, known: int, tokens: int, start: int, gate: bool
) -> int:
    seat = cache.seat[request]
    prefill_end = max(cache.prompt_tokens[request], known - 1)
    needed = 0
    for group in range(len(cache.groups)):
        if cache.groups[group].kind == IS_STATE:
            needed += needed_states(cache, seat, group, tokens, start, prefill_end, gate)
        else:
            needed += needed_blocks(cache, seat, group, tokens, start, gate)
    return needed


@kernel
def _hold(
    cache: GroupedCache, request: int, seat: int, group: int, before: int, after: int, known: int
) -> None:
    """Begin the table of a request with its hits."""
    kind, table = cache.groups[group], cache.table[seat, group]
    hits = cache.hit_blocks[group]
    skipped = passed_tokens(cache, group, before) // kind.tokens
    length = max(skipped, hits)
    gone = 0
    for place in range(length):
        block = cache.hits[group, place] if skipped <= place < hits else 0
        cache.tables[seat, group, place] = block
        if block > 0:
            hold_block(cache.pool, block)
        elif gone == place:
            gone = place + 1
    table.length = length
    table.filled = length
    table.gone = gone
    table.last = -1
    table.position = 0
    if kind.kind == IS_STATE:
        prefill_end = max(cache.prompt_tokens[request], known - 1)
        table.position = checkpoint(cache, -1, group, after, before, prefill_end)
        table.place = -(-after // kind.tokens) - 2


@kernel
def _extend_and_fill(
    cache: GroupedCache, request: int, seat: int, tokens: int, settled: int
) -> None:
    for group in range(len(cache.groups)):
        if cache.groups[group].kind == IS_STATE:
            extend_states(cache, seat, group, tokens)
        else:
            extend(cache, seat, group, tokens)
    settled = _in_step(cache, settled)
    for group in range(len(cache.groups)):
        if cache.groups[group].kind == IS_STATE:
            fill_states(cache, request, seat, group, settled)
        else:
            fill(cache, request, seat, group, settled)


@kernel
def _in_step(cache: GroupedCache, tokens: int) -> int:
    """Tokens whose blocks may be hit: groups keep step, in blocks of the scheduler."""
    if len(cache.groups) == 1:
        return tokens
    return tokens // cache.block_size * cache.block_size


@kernel
def _under_way(cache: GroupedCache, seat: int, new: int) -> None:
    if cache.now[0].asynchronous == 1:
        cache.under_way[seat, 0] = new
        cache.under_way[seat, 1] = cache.now[0].step
