"""The blocks that all groups of a KV cache draw from, one by one.

Rules of vllm/v1/core/block_pool.py (0.32): a free block without content is taken before those with
content, and those least recently freed first; a block keeps its content until it is taken. Equal
contents may be in several blocks: a hit goes to the one that was filled first.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel

NO_CONTENT = -1
_ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: spreads keys over the top bits


BLOCK = np.dtype(
    [
        ("content", "i8"),
        *((name, "i4") for name in ("references", "following", "preceding", "younger", "older")),
    ]
)
SLOT = np.dtype([("key", "i8"), ("first", "i8"), ("stamp", "i8")])


class BlockPool(NamedTuple):
    """State of b blocks; block 0 stands for none.

    Attributes:
        block: of each block the requests that hold it (``references``); the key of what may be hit
            in it (``content``), NO_CONTENT for nothing; its places in the doubly linked list of
            free blocks with content (``following``, ``preceding``), least recently freed first,
            of which entry 0 is both ends; and those in the circular list of the blocks that have
            its content (``younger``, ``older``), in the order in which they were filled, where the
            first one follows the last; records [b + 1].
        empty: free blocks without content, the next one last; int32 [b].
        slot: a hash table of contents by open addressing: the content (``key``), the block that was
            filled ``first``, and a ``stamp`` for whoever keeps one; records [m].
        shift: 64 less the binary logarithm of m.
        now: blocks that are ``free``, and those of them that are ``unhashed``; one record, which
            may have other fields too.
    """

    block: NDArray[np.void]
    empty: NDArray[np.int32]
    slot: NDArray[np.void]
    shift: int
    now: NDArray[np.void]


def block_pool(blocks: int, now: NDArray[np.void]) -> BlockPool:
    """A pool of ``blocks`` free blocks, whose numbers ``now`` must say."""
    bits = max(3, int(2 * blocks).bit_length())
    block = np.zeros(blocks + 1, BLOCK).view(np.recarray)
    block.content = NO_CONTENT
    slot = np.zeros(1 << bits, SLOT).view(np.recarray)
    slot.key = NO_CONTENT
    return BlockPool(
        block=block,
        empty=np.arange(blocks, 0, -1, dtype=np.int32),
        slot=slot,
        shift=64 - bits,
        now=now,
    )


@kernel
def take_block(pool: BlockPool) -> int:
    """A free block for one request; the caller has checked that there is one."""
    now = pool.now[0]
    now.free -= 1
    if now.unhashed > 0:
        now.unhashed -= 1
        block = pool.empty[now.unhashed]
    else:
        block = pool.block[0].following
        _unlink(pool, block)
        empty_block(pool, block)
    pool.block[block].references = 1
    return block


@kernel
def hold_block(pool: BlockPool, block: int) -> None:
    """One more request holds a block that it hit."""
    if pool.block[block].references == 0:
        _unlink(pool, block)
        pool.now[0].free -= 1
    pool.block[block].references += 1


@kernel
def release_block(pool: BlockPool, block: int) -> None:
    """One request holds a block no more."""
    pool.block[block].references -= 1
    if pool.block[block].references > 0:
        return
    now = pool.now[0]
    now.free += 1
    if pool.block[block].content == NO_CONTENT:
        pool.empty[now.unhashed] = block
        now.unhashed += 1
        return
    last = pool.block[0].preceding
    pool.block[last].following = block
    pool.block[block].preceding = last
    pool.block[block].following = 0
    pool.block[0].preceding = block


@kernel
def find_content(pool: BlockPool, key: int) -> int:
    """Where the hash table has a content; -1 where no block has it."""
    mask = len(pool.slot) - 1
    place = int(_home(pool, key))
    while pool.slot[place].key != key:
        if pool.slot[place].key == NO_CONTENT:
            return -1
        place = (place + 1) & mask
    return place


@kernel
def fill_block(pool: BlockPool, block: int, key: int) -> None:
    """A block without content has one that others may hit from now on."""
    pool.block[block].content = key
    mask = len(pool.slot) - 1
    place = int(_home(pool, key))
    while pool.slot[place].key != key and pool.slot[place].key != NO_CONTENT:
        place = (place + 1) & mask
    if pool.slot[place].key == NO_CONTENT:
        pool.slot[place].key = key
        pool.slot[place].first = block
        pool.slot[place].stamp = 0
        pool.block[block].younger = block
        pool.block[block].older = block
        return
    oldest = pool.slot[place].first
    youngest = pool.block[oldest].older
    pool.block[youngest].younger = block
    pool.block[block].older = youngest
    pool.block[block].younger = oldest
    pool.block[oldest].older = block


@kernel
def empty_block(pool: BlockPool, block: int) -> None:
    """A block loses its content, if it has any."""
    key = pool.block[block].content
    if key == NO_CONTENT:
        return
    pool.block[block].content = NO_CONTENT
    place = find_content(pool, key)
    younger, older = pool.block[block].younger, pool.block[block].older
    if younger == block:
        _remove(pool, place)
        return
    pool.block[older].younger = younger
    pool.block[younger].older = older
    if pool.slot[place].first == block:
        pool.slot[place].first = younger


@kernel
def _home(pool: BlockPool, key: int) -> np.int64:
    """Where a content is looked for first."""
    return np.int64((np.uint64(key) * np.uint64(_ODD)) >> np.uint64(pool.shift))


@kernel
def _remove(pool: BlockPool, place: int) -> None:
    """Take a content out of the hash table, and close the gap that it leaves."""
    mask = len(pool.slot) - 1
    gap, place = place, (place + 1) & mask
    while pool.slot[place].key != NO_CONTENT:
        # What is at home behind the gap, or in it, may not be moved before its home.
        distance = (place - _home(pool, pool.slot[place].key)) & mask
        if distance >= (place - gap) & mask:
            pool.slot[gap].key = pool.slot[place].key
            pool.slot[gap].first = pool.slot[place].first
            pool.slot[gap].stamp = pool.slot[place].stamp
            gap = place
        place = (place + 1) & mask
    pool.slot[gap].key = NO_CONTENT


@kernel
def _unlink(pool: BlockPool, block: int) -> None:
    before, after = pool.block[block].preceding, pool.block[block].following
    pool.block[before].following = after
    pool.block[after].preceding = before
