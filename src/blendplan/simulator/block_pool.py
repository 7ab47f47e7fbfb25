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


class BlockPool(NamedTuple):
    """State of b blocks; block 0 stands for none.

    Attributes:
        references: requests that hold a block; int32 [b + 1].
        content: key of what may be hit in it, NO_CONTENT for nothing; int64 [b + 1].
        following, preceding: the doubly linked list of free blocks with content, least recently
            freed first; entry 0 is both ends; int32 [b + 1].
        younger, older: circular list of the blocks that have a content, in the order in which they
            were filled: the one that was filled first follows the last; int32 [b + 1].
        empty: free blocks without content, the next one last; int32 [b].
        keys, first, stamp: a hash table of contents by open addressing: the content, the block
            that was filled first, and a number for whoever keeps one; int64, int32, int64 [m].
        shift: 64 less the binary logarithm of m.
        now: blocks that are ``free``, and those of them that are ``unhashed``; one record, which
            may have other fields too.
    """

    references: NDArray[np.int32]
    content: NDArray[np.int64]
    following: NDArray[np.int32]
    preceding: NDArray[np.int32]
    younger: NDArray[np.int32]
    older: NDArray[np.int32]
    empty: NDArray[np.int32]
    keys: NDArray[np.int64]
    first: NDArray[np.int32]
    stamp: NDArray[np.int64]
    shift: int
    now: NDArray[np.void]


def block_pool(blocks: int, now: NDArray[np.void]) -> BlockPool:
    """A pool of ``blocks`` free blocks, whose numbers ``now`` must say."""
    bits = max(3, int(2 * blocks).bit_length())
    links = np.zeros(blocks + 1, dtype=np.int32)
    return BlockPool(
        references=links.copy(),
        content=np.full(blocks + 1, NO_CONTENT, dtype=np.int64),
        following=links.copy(),
        preceding=links.copy(),
        younger=links.copy(),
        older=links,
        empty=np.arange(blocks, 0, -1, dtype=np.int32),
        keys=np.full(1 << bits, NO_CONTENT, dtype=np.int64),
        first=np.zeros(1 << bits, dtype=np.int32),
        stamp=np.zeros(1 << bits, dtype=np.int64),
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
        block = pool.following[0]
        _unlink(pool, block)
        empty_block(pool, block)
    pool.references[block] = 1
    return block


@kernel
def hold_block(pool: BlockPool, block: int) -> None:
    """One more request holds a block that it hit."""
    if pool.references[block] == 0:
        _unlink(pool, block)
        pool.now[0].free -= 1
    pool.references[block] += 1


@kernel
def release_block(pool: BlockPool, block: int) -> None:
    """One request holds a block no more."""
    pool.references[block] -= 1
    if pool.references[block] > 0:
        return
    now = pool.now[0]
    now.free += 1
    if pool.content[block] == NO_CONTENT:
        pool.empty[now.unhashed] = block
        now.unhashed += 1
        return
    last = pool.preceding[0]
    pool.following[last] = block
    pool.preceding[block] = last
    pool.following[block] = 0
    pool.preceding[0] = block


@kernel
def find_content(pool: BlockPool, key: int) -> int:
    """Where the hash table has a content; -1 where no block has it."""
    mask = len(pool.keys) - 1
    place = int(_home(pool, key))
    while pool.keys[place] != key:
        if pool.keys[place] == NO_CONTENT:
            return -1
        place = (place + 1) & mask
    return place


@kernel
def fill_block(pool: BlockPool, block: int, key: int) -> None:
    """A block without content has one that others may hit from now on."""
    pool.content[block] = key
    mask = len(pool.keys) - 1
    place = int(_home(pool, key))
    while pool.keys[place] != key and pool.keys[place] != NO_CONTENT:
        place = (place + 1) & mask
    if pool.keys[place] == NO_CONTENT:
        pool.keys[place] = key
        pool.first[place] = block
        pool.stamp[place] = 0
        pool.younger[block] = block
        pool.older[block] = block
        return
    oldest = pool.first[place]
    youngest = pool.older[oldest]
    pool.younger[youngest] = block
    pool.older[block] = youngest
    pool.younger[block] = oldest
    pool.older[oldest] = block


@kernel
def empty_block(pool: BlockPool, block: int) -> None:
    """A block loses its content, if it has any."""
    key = pool.content[block]
    if key == NO_CONTENT:
        return
    pool.content[block] = NO_CONTENT
    place = find_content(pool, key)
    younger, older = pool.younger[block], pool.older[block]
    if younger == block:
        _remove(pool, place)
        return
    pool.younger[older] = younger
    pool.older[younger] = older
    if pool.first[place] == block:
        pool.first[place] = younger


@kernel
def _home(pool: BlockPool, key: int) -> np.int64:
    """Where a content is looked for first."""
    return np.int64((np.uint64(key) * np.uint64(_ODD)) >> np.uint64(pool.shift))


@kernel
def _remove(pool: BlockPool, place: int) -> None:
    """Take a content out of the hash table, and close the gap that it leaves."""
    mask = len(pool.keys) - 1
    gap, place = place, (place + 1) & mask
    while pool.keys[place] != NO_CONTENT:
        # What is at home behind the gap, or in it, may not be moved before its home.
        distance = (place - _home(pool, pool.keys[place])) & mask
        if distance >= (place - gap) & mask:
            pool.keys[gap] = pool.keys[place]
            pool.first[gap] = pool.first[place]
            pool.stamp[gap] = pool.stamp[place]
            gap = place
        place = (place + 1) & mask
    pool.keys[gap] = NO_CONTENT


@kernel
def _unlink(pool: BlockPool, block: int) -> None:
    before, after = pool.preceding[block], pool.following[block]
    pool.following[before] = after
    pool.preceding[after] = before
