"""What is different of groups of states in a `GroupedCache`: Mamba, linear attention.

Rules of ``MambaManager`` in vllm/v1/core/single_type_kv_cache_manager.py and of
``_mamba_block_aligned_split`` in vllm/v1/core/sched/scheduler.py (0.32), with states kept at block
boundaries (mode "align"). A request has one block, and two in the step that passes a boundary. Its
state can be hit only where a chunk ended on a boundary, or where the layer can save one inside a
chunk (a *checkpoint*); and not in a step in which it was filled or its owner came past it.
"""

from blendplan.kernels.kernel import kernel
from blendplan.simulator.block_pool import (
    NO_CONTENT,
    empty_block,
    fill_block,
    find_content,
    release_block,
    take_block,
)
from blendplan.simulator.grouped_cache import IS_STATE, GroupedCache, ceil_div, content_key, fill


@kernel
def give_back_states(cache: GroupedCache, seat: int, group: int, computed: int) -> None:
    """Give back the states that are behind the last one."""
    table, tokens = cache.table[seat, group], cache.groups[group].tokens
    if computed > 1:
        last = min((computed - 1) // tokens, table.length)
        for place in range(last - 1, table.gone - 1, -1):
            _drop(cache, seat, group, place)
        table.gone = max(table.gone, last)
    if 0 <= table.last < ceil_div(computed, tokens) - 1:
        _drop(cache, seat, group, table.last)


@kernel
def _drop(cache: GroupedCache, seat: int, group: int, place: int) -> None:
    block = cache.tables[seat, group, place]
    if block > 0:
        release_block(cache.pool, block)
        cache.tables[seat, group, place] = 0


@kernel
def has_more_states(cache: GroupedCache, seat: int, group: int) -> bool:
    """Whether a group has other states of a request than the last one."""
    table = cache.table[seat, group]
    if table.gone < table.length - 1 or table.position > 0:
        return True
    return table.last >= 0 and cache.tables[seat, group, table.last] > 0


@kernel
def needed_states(
    cache: GroupedCache,
    seat: int,
    group: int,
    tokens: int,
    start: int,
    prefill_end: int,
    gate: bool,
) -> int:
    """Blocks that must be free for the states of a group; more than all where it must wait.

    Args: as of `needed_blocks`; ``prefill_end`` is where the prompt ends.
    """
    kind = cache.groups[group]
    hits, length, evicted = cache.hit_blocks[group], 0, 0
    if seat >= 0:
        hits, length = 0, cache.table[seat, group].length
    elif hits > 0:
        block = cache.hits[group, hits - 1]
        place = find_content(cache.pool, cache.pool.content[block])
        if cache.pool.stamp[place] == cache.now[0].step:
            return cache.blocks + 1
        evicted = int(cache.pool.references[block] == 0)
    position = checkpoint(cache, seat, group, tokens, start, prefill_end)
    if not gate and seat >= 0:
        cache.table[seat, group].position = position
        cache.table[seat, group].place = ceil_div(tokens, kind.tokens) - 2
    new = ceil_div(tokens, kind.tokens) - hits - length
    return max(0, min(new, 1 + int(position > 0))) + evicted


@kernel
def checkpoint(
    cache: GroupedCache, seat: int, group: int, tokens: int, start: int, prefill_end: int
) -> int:
    """Position whose state is saved inside the chunk from ``start`` to ``tokens``; 0 for none."""
    kind = cache.groups[group]
    position = (tokens - 1) // cache.block_size * cache.block_size
    place = ceil_div(tokens, kind.tokens) - 2
    if tokens < prefill_end or place < 0 or not _can_save(cache, group, start, tokens, position):
        return 0
    if seat >= 0 and place < cache.table[seat, group].length:
        return position if cache.tables[seat, group, place] == 0 else 0
    return position


@kernel
def _can_save(cache: GroupedCache, group: int, start: int, end: int, position: int) -> bool:
    """Whether a layer can save the state at a position inside the chunk from start to end."""
    kind = cache.groups[group]
    return (
        kind.checkpoint > 0
        and start % cache.unit == 0
        and ceil_div(end, kind.tokens) - 2 > (start - 1) // kind.tokens
        and start + cache.unit <= position < end
        and (position - start) % kind.checkpoint == 0
    )


@kernel
def extend_states(cache: GroupedCache, seat: int, group: int, tokens: int) -> None:
    """Give a group a block for the state after so many tokens, and one for a checkpoint."""
    table = cache.table[seat, group]
    required = ceil_div(tokens, cache.groups[group].tokens)
    saves = int(table.position > 0)
    if required <= table.length and saves == 0:
        return
    if table.length > 0:
        table.last = table.length - 1
    for place in range(table.length, required):
        empty = place < required - 1 - saves
        cache.tables[seat, group, place] = 0 if empty else take_block(cache.pool)
    table.length = max(table.length, required)


@kernel
def fill_states(cache: GroupedCache, request: int, seat: int, group: int, tokens: int) -> None:
    """Let others hit the states that are kept for it, from the next step on."""
    table = cache.table[seat, group]
    before = table.filled
    fill(cache, request, seat, group, tokens)
    _fill_boundary(cache, request, seat, group, tokens)
    for place in range(before, table.filled):
        _not_now(cache, cache.tables[seat, group, place])


@kernel
def _fill_boundary(cache: GroupedCache, request: int, seat: int, group: int, tokens: int) -> None:
    """The state before the last token of the prompt, saved inside a chunk or at its end."""
    table, kind = cache.table[seat, group], cache.groups[group]
    last = cache.prompt_tokens[request] - 1
    if table.position > 0:
        block = cache.tables[seat, group, table.place]
        if block == 0:
            return
        kept = table.position == last // cache.block_size * cache.block_size
        if not kept and table.position != cache.junction[seat]:
            empty_block(cache.pool, block)
            return
        key = content_key(cache, request, group, table.position)
        if cache.pool.content[block] != key:
            empty_block(cache.pool, block)
            fill_block(cache.pool, block, key)
            _not_now(cache, block)
        return
    if tokens > 0 and tokens == last // kind.tokens * kind.tokens:
        place = tokens // kind.tokens - 1
        block = cache.tables[seat, group, place] if place < table.length else 0
        if block > 0:
            if cache.pool.content[block] == NO_CONTENT:
                fill_block(cache.pool, block, content_key(cache, request, group, tokens))
            _not_now(cache, block)


@kernel
def _not_now(cache: GroupedCache, block: int) -> None:
    """What a block holds cannot be hit in this step: it is written in it."""
    if block > 0 and cache.pool.content[block] != NO_CONTENT:
        cache.pool.stamp[find_content(cache.pool, cache.pool.content[block])] = cache.now[0].step


@kernel
def aligned_chunk(
    cache: GroupedCache, request: int, junction: int, known: int, start: int, new: int, largest: int
) -> int:
    """Tokens of a chunk of a prompt, cut so that it ends where a state is to be kept.

    Args:
        cache: the cache.
        request: whose prompt it is.
        junction: where another group has hits and this one has not, in tokens; 0 for none.
        known: prompt and generated tokens.
        start: those that are computed.
        new: those that the step has room for.
        largest: most tokens that the step may have.
    """
    prefill_end = max(cache.prompt_tokens[request], known - 1)
    if start >= prefill_end:
        return new
    end = start + new
    size, inside = 0, end >= prefill_end
    position = (prefill_end - 1) // cache.block_size * cache.block_size
    for group in range(len(cache.groups)):
        if cache.groups[group].kind == IS_STATE:
            size = cache.groups[group].tokens
            inside = inside and _can_save(cache, group, start, end, position)
    # A chunk that does not end the prompt ends on a boundary, unless a block is larger than steps.
    if end < prefill_end:
        aligned = end // size * size
        if aligned > start or size <= largest:
            end = aligned
    stop = end
    if start % size != 0 and not inside:
        stop = _earlier(start, (start // size + 1) * size, stop)
    if not inside:
        stop = _earlier(start, (known - 1) // size * size, stop)
    if start < junction < end:
        stop = _earlier(start, start + (junction - start) // size * size, stop)
    return max(0, stop - start)


@kernel
def _earlier(start: int, stop: int, end: int) -> int:
    """The end of a chunk, or a stop before it."""
    return stop if start < stop < end else end
