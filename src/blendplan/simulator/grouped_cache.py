"""The KV cache of a layout with several groups, with windows or with states: a table of blocks for
each running request and group.

Rules of vllm/v1/core/single_type_kv_cache_manager.py and kv_cache_manager.py (0.32), with prefix
caching and ``prefix_cache_retention_interval`` 0, its default: before a request gets blocks it
gives back those behind its window; of a window and of a state, others may hit only what is at the
last block boundary of a prompt, and at a *junction*, where another group has hits and this one has
not. With asynchronous scheduling, what the step before computed is under way and still needs its
blocks.

The parts: `block_pool` has the blocks, `grouped_hits` looks up prefixes, `states` has what is
different of states, `grouped_steps` is what the engine calls.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.kv_layer import CHUNKED, FULL, KINDS, SLIDING, STATE
from blendplan.hardware.kv_layout import KvLayout
from blendplan.kernels.kernel import kernel
from blendplan.kernels.scalars import scalars
from blendplan.simulator.block_pool import (
    NO_CONTENT,
    BlockPool,
    block_pool,
    fill_block,
    release_block,
    take_block,
)

IS_FULL, IS_SLIDING, IS_CHUNKED, IS_STATE = map(KINDS.index, (FULL, SLIDING, CHUNKED, STATE))
GROUP = np.dtype(
    [(name, "i8") for name in ("kind", "reach", "tokens", "bucket", "checkpoint", "most")]
)
TABLE = np.dtype(
    [(name, "i8") for name in ("length", "filled", "gone", "last", "position", "place")]
)
NOW = np.dtype(
    [
        (name, "i8")
        for name in ("free", "unhashed", "step", "asynchronous", "seats", "junction", "states")
    ]
)


class GroupedCache(NamedTuple):
    """State of the KV cache over n requests, g groups in k buckets of like layers.

    Attributes:
        blocks: capacity in blocks.
        block_size: tokens of the scheduler's block, a multiple of every group's.
        unit: greatest common divisor of the groups' blocks.
        chain_ids, chain_offsets, content_blocks: blocks of ``unit`` tokens at the start of each
            prompt that others have too, and how many there are; see `BlockChains`.
        prompt_tokens: int32 [n].
        groups: kind, reach, tokens of a block, bucket, tokens of checkpoints and most blocks at
            admission, as of `KvGroup`; records [g].
        buckets: first group of each bucket, and their number; int64 [k + 1].
        order: buckets as they are looked up, full attention first; int64 [k].
        pool: the blocks.
        seat: number among the running requests, -1 for those that do not run; int32 [n].
        seats: numbers that are free, the next one last; int64 [s].
        begun: whether a request was ever admitted; int8 [n].
        room: tokens up to which a running request may decode and nothing happens to its blocks;
            int32 [n].
        tables: blocks of each seat and group, 0 for none; int32 [s, g, w].
        table: of each, its ``length``; the blocks ``filled``, which may be hit; those ``gone`` from
            its beginning; of a state, the block of the ``last`` step, and the ``position`` of a
            checkpoint (0 for none) with its ``place``; records [s, g].
        junction: of each seat, in tokens; 0 for none; int64 [s].
        under_way: of each seat, tokens of its last step, and that step; int64 [s, 2].
        hits, hit_blocks: what was looked up last: blocks of each group, and how many; int32
            [g, w], int64 [g].
        now: blocks that are ``free`` and ``unhashed``; number of the ``step``; whether steps are
            scheduled ``asynchronous``; ``seats`` that are free; ``junction`` of what was looked up
            last; whether there are ``states``; one record.
    """

    blocks: int
    block_size: int
    unit: int
    chain_ids: NDArray[np.int32]
    chain_offsets: NDArray[np.int64]
    content_blocks: int
    prompt_tokens: NDArray[np.int32]
    groups: NDArray[np.void]
    buckets: NDArray[np.int64]
    order: NDArray[np.int64]
    pool: BlockPool
    seat: NDArray[np.int32]
    seats: NDArray[np.int64]
    begun: NDArray[np.int8]
    room: NDArray[np.int32]
    tables: NDArray[np.int32]
    table: NDArray[np.void]
    junction: NDArray[np.int64]
    under_way: NDArray[np.int64]
    hits: NDArray[np.int32]
    hit_blocks: NDArray[np.int64]
    now: NDArray[np.void]


def empty_grouped_cache(
    layout: KvLayout,
    blocks: int,
    prompt_tokens: NDArray[np.int32],
    chain_ids: NDArray[np.int32],
    chain_offsets: NDArray[np.int64],
    content_blocks: int,
    *,
    seats: int,
    most_tokens: int,
    async_scheduling: bool,
) -> GroupedCache:
    """An empty cache of ``blocks`` blocks.

    Args:
        layout: its groups.
        blocks: usable ones.
        prompt_tokens: int32 [n].
        chain_ids, chain_offsets, content_blocks: see `BlockChains`; blocks of ``hash_tokens``.
        seats: most requests that run at once.
        most_tokens: of the longest request, prompt and output.
        async_scheduling: as of `EngineLimits`.
    """
    groups = np.zeros(len(layout.groups), GROUP).view(np.recarray)
    for place, group in enumerate(layout.groups):
        groups[place] = (
            KINDS.index(group.kind),
            group.reach,
            group.block_tokens,
            group.bucket,
            group.checkpoint_tokens,
            group.most_blocks,
        )
    buckets = np.searchsorted(groups.bucket, np.arange(groups.bucket[-1] + 2))
    kinds = groups.kind[buckets[:-1]]
    unit = layout.hash_tokens
    width = most_tokens // unit + 2
    shape = (seats, len(groups))
    now = scalars(
        NOW,
        free=blocks,
        unhashed=blocks,
        asynchronous=int(async_scheduling),
        seats=seats,
        states=int(layout.has_states),
    )
    return GroupedCache(
        blocks=blocks,
        block_size=layout.block_tokens,
        unit=unit,
        chain_ids=chain_ids,
        chain_offsets=chain_offsets,
        content_blocks=content_blocks,
        prompt_tokens=prompt_tokens,
        groups=groups,
        buckets=buckets.astype(np.int64),
        order=np.argsort(kinds != IS_FULL, kind="stable").astype(np.int64),
        pool=block_pool(blocks, now),
        seat=np.full(len(prompt_tokens), -1, dtype=np.int32),
        seats=np.arange(seats - 1, -1, -1, dtype=np.int64),
        begun=np.zeros(len(prompt_tokens), dtype=np.int8),
        room=np.zeros(len(prompt_tokens), dtype=np.int32),
        # Pages of memory that no request comes to are never there.
        tables=np.zeros((*shape, width), dtype=np.int32),
        table=np.zeros(shape, TABLE).view(np.recarray),
        junction=np.zeros(seats, dtype=np.int64),
        under_way=np.zeros((seats, 2), dtype=np.int64),
        hits=np.zeros((len(groups), width), dtype=np.int32),
        hit_blocks=np.zeros(len(groups), dtype=np.int64),
        now=now,
    )


@kernel
def ceil_div(value: int, divisor: int) -> int:
    """Division, rounded up."""
    return -(-value // divisor)


@kernel
def content_key(cache: GroupedCache, request: int, group: int, end: int) -> int:
    """Key of what a block holds that ends after so many tokens of a request.

    Equal keys are equal tokens up to there.
    """
    start, block = cache.chain_offsets[request], end // cache.unit - 1
    if start + block < cache.chain_offsets[request + 1]:
        content = cache.chain_ids[start + block]
    else:
        content = cache.content_blocks + request * cache.tables.shape[2] + block
    return content * len(cache.groups) + group


@kernel
def passed_tokens(cache: GroupedCache, group: int, computed: int) -> int:
    """Tokens at the beginning that attention of a group looks at no more."""
    kind = cache.groups[group]
    if kind.kind == IS_SLIDING:
        return max(0, computed - kind.reach + 1)
    if kind.kind == IS_CHUNKED:
        return computed // kind.reach * kind.reach
    return 0


@kernel
def give_back(cache: GroupedCache, seat: int, group: int, computed: int) -> None:
    """Give back the blocks of attention that are behind its window."""
    table = cache.table[seat, group]
    last = min(passed_tokens(cache, group, computed) // cache.groups[group].tokens, table.length)
    for place in range(last - 1, table.gone - 1, -1):
        release_block(cache.pool, cache.tables[seat, group, place])
        cache.tables[seat, group, place] = 0
    table.gone = max(table.gone, last)


@kernel
def needed_blocks(
    cache: GroupedCache, seat: int, group: int, tokens: int, start: int, gate: bool
) -> int:
    """Blocks that must be free so that attention of a group has room for so many tokens.

    Args:
        cache: the cache.
        seat: of the request, -1 where it would be admitted with the hits looked up last.
        group: the group.
        tokens: all tokens of the request.
        start: those that are computed or hit.
        gate: for the whole prompt, of which a window needs no more than its limit.
    """
    kind = cache.groups[group]
    required = ceil_div(tokens, kind.tokens)
    if gate and kind.most > 0:
        required = min(required, kind.most)
    if seat >= 0:
        return max(0, required - cache.table[seat, group].length)
    skipped = passed_tokens(cache, group, start) // kind.tokens
    needed = max(0, required - max(skipped, cache.hit_blocks[group]))
    for place in range(skipped, cache.hit_blocks[group]):
        block = cache.hits[group, place]
        if block > 0 and cache.pool.block[block].references == 0:
            needed += 1
    return needed


@kernel
def extend(cache: GroupedCache, seat: int, group: int, tokens: int) -> None:
    """Give attention of a group room for so many tokens."""
    table = cache.table[seat, group]
    required = ceil_div(tokens, cache.groups[group].tokens)
    for place in range(table.length, required):
        cache.tables[seat, group, place] = take_block(cache.pool)
    table.length = max(table.length, required)


@kernel
def fill(cache: GroupedCache, request: int, seat: int, group: int, tokens: int) -> None:
    """Let others hit the full blocks of so many tokens that are kept for it."""
    table, kind = cache.table[seat, group], cache.groups[group]
    full = tokens // kind.tokens
    for place in range(table.filled, full):
        block = cache.tables[seat, group, place]
        if (
            block > 0
            and cache.pool.block[block].content == NO_CONTENT
            and _is_kept(cache, request, seat, group, place)
        ):
            end = (place + 1) * kind.tokens
            fill_block(cache.pool, block, content_key(cache, request, group, end))
    table.filled = max(table.filled, full)


@kernel
def _is_kept(cache: GroupedCache, request: int, seat: int, group: int, place: int) -> bool:
    """Whether a full block is kept for others: of a window or state, only before a boundary."""
    kind = cache.groups[group]
    if kind.kind == IS_FULL or kind.kind == IS_CHUNKED:
        return True
    blocks = 1 if kind.kind == IS_STATE else ceil_div(kind.reach - 1, kind.tokens)
    for boundary in (cache.prompt_tokens[request] - 1, cache.junction[seat]):
        end = boundary // cache.block_size * cache.block_size // kind.tokens
        if end - blocks <= place < end:
            return True
    return False


@kernel
def release_table(cache: GroupedCache, seat: int, group: int) -> None:
    """Give back all blocks of a group, the last one first."""
    for place in range(cache.table[seat, group].length - 1, -1, -1):
        block = cache.tables[seat, group, place]
        if block > 0:
            release_block(cache.pool, block)


def held_blocks(cache: GroupedCache, request: int) -> int:
    """Blocks of all groups that a request holds."""
    seat = cache.seat[request]
    if seat < 0:
        return 0
    return sum(
        int(np.count_nonzero(cache.tables[seat, group, : cache.table[seat, group].length]))
        for group in range(len(cache.groups))
    )
