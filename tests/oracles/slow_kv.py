"""A slow, obvious KV cache of groups: the oracle of the simulated one.

One object per block, a table of blocks per request and group, and the content of a block is the
tuple of all tokens up to its end. The rules are those of vllm/v1/core/block_pool.py,
single_type_kv_cache_manager.py, kv_cache_coordinator.py and kv_cache_manager.py (0.32), with
prefix caching, a retention interval of 0 and states in the mode "align". Checked step by step
against recordings of the real scheduler.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol

from blendplan.hardware.kv_layer import CHUNKED, FULL, SLIDING
from blendplan.hardware.kv_layout import KvGroup, KvLayout


def ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


class Block:
    """One block of the pool; `content` is None while nobody may hit it."""

    def __init__(self) -> None:
        self.content: Hashable = None
        self.references = 0


Table = list[Block | None]
"""Blocks of a request in one group; None where it needs none any more, or never had one."""


class Pool:
    """Free blocks without content first, then those with content, least recently freed first."""

    def __init__(self, blocks: int) -> None:
        self.plain = [Block() for _ in range(blocks)]
        self.cached: OrderedDict[Block, None] = OrderedDict()
        self.blocks_of: dict[Hashable, OrderedDict[Block, None]] = {}

    def free(self) -> int:
        return len(self.plain) + len(self.cached)

    def take(self) -> Block:
        if self.plain:
            block = self.plain.pop()
        else:
            block, _ = self.cached.popitem(last=False)
            self.empty(block)
        block.references = 1
        return block

    def find(self, content: Hashable) -> Block | None:
        return next(iter(self.blocks_of.get(content, ())), None)

    def hold(self, block: Block) -> None:
        if block.references == 0:
            del self.cached[block]
        block.references += 1

    def fill(self, block: Block, content: Hashable) -> None:
        block.content = content
        self.blocks_of.setdefault(content, OrderedDict())[block] = None

    def empty(self, block: Block) -> None:
        if block.content is not None:
            del self.blocks_of[block.content][block]
            block.content = None

    def release(self, blocks: Iterable[Block | None]) -> None:
        for block in blocks:
            if block is None:
                continue
            block.references -= 1
            if block.references == 0:
                if block.content is None:
                    self.plain.append(block)
                else:
                    self.cached[block] = None


class Contents(Protocol):
    """What the blocks of a request hold."""

    def prompt_tokens(self, request: int) -> int: ...
    def content(self, request: int, end: int) -> Hashable: ...


class Group:
    """Blocks of full attention; the other kinds change what differs."""

    def __init__(
        self, number: int, group: KvGroup, pool: Pool, contents: Contents, alignment: int
    ) -> None:
        self.number, self.kind, self.pool, self.contents = number, group, pool, contents
        self.size = group.block_tokens
        self.alignment = alignment
        self.tables: dict[int, Table] = {}
        self.filled: dict[int, int] = {}

    def table(self, request: int) -> Table:
        return self.tables.setdefault(request, [])

    def cached(self, request: int, block: int) -> Block | None:
        return self.pool.find(
            (self.number, self.contents.content(request, (block + 1) * self.size))
        )

    def new_step(self) -> None:
        """A step begins."""

    def passed(self, computed: int) -> int:
        """Tokens that nobody looks at any more."""
        return 0

    def give_back(self, request: int, computed: int) -> None:
        table = self.table(request)
        last = min(self.passed(computed) // self.size, len(table))
        freed = []
        for place in range(last - 1, -1, -1):
            if table[place] is None:
                break
            freed.append(table[place])
            table[place] = None
        self.pool.release(freed)

    def needed(
        self, request: int, tokens: int, start: int, hits: Table, gate: bool, prefill_end: int
    ) -> int:
        """Blocks that must be free so that the request has room for so many tokens."""
        required = ceil(tokens, self.size)
        if gate and self.kind.most_blocks:
            required = min(required, self.kind.most_blocks)
        if request in self.filled:
            return max(0, required - len(self.table(request)))
        skipped = self.passed(start) // self.size
        new = max(0, required - max(skipped, len(hits)))
        return new + sum(hit is not None and hit.references == 0 for hit in hits[skipped:])

    def hold(self, request: int, hits: Table, computed: int) -> None:
        skipped = self.passed(computed) // self.size
        for hit in hits[skipped:]:
            if hit is not None:
                self.pool.hold(hit)
        self.tables[request] = [*[None] * skipped, *hits[skipped:]]
        self.filled[request] = len(self.tables[request])

    def extend(self, request: int, tokens: int) -> None:
        table = self.table(request)
        while len(table) < ceil(tokens, self.size):
            table.append(self.pool.take())

    def kept(self, request: int, block: int, junction: int) -> bool:
        """Whether a full block is kept for others to hit."""
        return True

    def fill(self, request: int, tokens: int, junction: int) -> None:
        """Blocks that are full by now may be hit from now on."""
        table, before = self.table(request), self.filled.get(request, 0)
        for place in range(before, tokens // self.size):
            block = table[place]
            if block is not None and self.kept(request, place, junction):
                content = self.contents.content(request, (place + 1) * self.size)
                self.pool.fill(block, (self.number, content))
        if tokens // self.size > before:
            self.filled[request] = tokens // self.size

    def release(self, request: int) -> None:
        self.pool.release(reversed(self.tables.pop(request, [])))
        self.filled.pop(request, None)

    def boundaries(self, request: int, junction: int) -> list[int]:
        """Where others may go on: before the last token of the prompt, and at a junction."""
        found = [self.contents.prompt_tokens(request) - 1, junction]
        return [boundary // self.alignment * self.alignment for boundary in found if boundary]


class Window(Group):
    """Sliding windows."""

    def passed(self, computed: int) -> int:
        return max(0, computed - self.kind.reach + 1)

    def kept(self, request: int, block: int, junction: int) -> bool:
        blocks = ceil(self.kind.reach - 1, self.size)
        ends = [end // self.size for end in self.boundaries(request, junction)]
        return any(end - blocks <= block < end for end in ends)


class Chunk(Group):
    """Chunked local attention."""

    def passed(self, computed: int) -> int:
        return computed // self.kind.reach * self.kind.reach


class State(Group):
    """States, of which a request has the last, and for a while the one before."""

    def __init__(
        self, number: int, group: KvGroup, pool: Pool, contents: Contents, alignment: int
    ) -> None:
        super().__init__(number, group, pool, contents, alignment)
        self.last: dict[int, int] = {}
        self.retired: dict[int, int] = {}
        self.extended: set[int] = set()
        self.checkpoint: dict[int, tuple[int, int]] = {}
        self.filled_now: set[Hashable] = set()

    def new_step(self) -> None:
        self.filled_now.clear()

    def give_back(self, request: int, computed: int) -> None:
        table = self.table(request)
        if computed - 1 > 0:
            first = self.retired.get(request, 0)
            last = min((computed - 1) // self.size, len(table))
            if first < last:
                self.pool.release(reversed(table[first:last]))
                table[first:last] = [None] * (last - first)
                self.retired[request] = last
        place = self.last.get(request)
        if place is not None and place < ceil(computed, self.size) - 1:
            self.pool.release([table[place]])
            table[place] = None

    def needed(
        self, request: int, tokens: int, start: int, hits: Table, gate: bool, prefill_end: int
    ) -> int:
        if hits and hits[-1] is not None and hits[-1].content in self.filled_now:
            return 10**9
        table = self.table(request)
        new = ceil(tokens, self.size) - len(hits) - len(table)
        position = (tokens - 1) // self.alignment * self.alignment
        place = ceil(tokens, self.size) - 2
        inside = (
            self.kind.checkpoint_tokens > 0
            and tokens >= prefill_end
            and saved_inside(start, tokens, position, self.size, self.kind.checkpoint_tokens)
            and place >= 0
            and (place >= len(table) or table[place] is None)
        )
        if not gate:
            self.checkpoint.pop(request, None)
            if inside and position:
                self.checkpoint[request] = position, place
        new = max(0, min(new, 1 + int(inside and position > 0)))
        return new + sum(hit is not None and hit.references == 0 for hit in hits)

    def extend(self, request: int, tokens: int) -> None:
        table, required = self.table(request), ceil(tokens, self.size)
        inside = request in self.checkpoint
        if required > len(table) or inside:
            if table:
                self.last[request] = len(table) - 1
            while len(table) < required - 1 - inside:
                table.append(None)
            while len(table) < required:
                table.append(self.pool.take())
        self.extended.add(request)

    def kept(self, request: int, block: int, junction: int) -> bool:
        ends = [end // self.size for end in self.boundaries(request, junction)]
        return block + 1 in ends

    def fill(self, request: int, tokens: int, junction: int) -> None:
        before = self.filled.get(request, 0)
        super().fill(request, tokens, junction)
        self._fill_boundary(request, tokens, junction)
        table = self.table(request)
        for place in range(before, self.filled.get(request, 0)):
            block = table[place]
            if block is not None and block.content is not None:
                self.filled_now.add(block.content)

    def _fill_boundary(self, request: int, tokens: int, junction: int) -> None:
        """What is at the end of the prompt's last whole block may be hit, but in no same step."""
        table = self.table(request)
        prompt = self.contents.prompt_tokens(request)
        if request in self.checkpoint:
            position, place = self.checkpoint[request]
            block = table[place]
            if block is None:
                return
            content = (self.number, self.contents.content(request, position))
            replay = (prompt - 1) // self.alignment * self.alignment
            if position not in (replay, junction):
                self.pool.empty(block)
            elif block.content != content:
                self.pool.empty(block)
                self.pool.fill(block, content)
                self.filled_now.add(content)
            return
        replay = (prompt - 1) // self.size * self.size
        if tokens == replay > 0 and tokens // self.size <= len(table):
            block = table[tokens // self.size - 1]
            if block is not None:
                content = (self.number, self.contents.content(request, tokens))
                if block.content is None:
                    self.pool.fill(block, content)
                self.filled_now.add(content)

    def release(self, request: int) -> None:
        super().release(request)
        for kept in (self.last, self.retired, self.checkpoint):
            kept.pop(request, None)
        self.extended.discard(request)


def saved_inside(start: int, end: int, position: int, size: int, alignment: int) -> bool:
    """Whether the state at a position can be saved within the chunk from start to end."""
    return (
        start % size == 0
        and ceil(end, size) - 2 > (start - 1) // size
        and start + size <= position
        and start < position < end
        and (position - start) % alignment == 0
    )


class SlowKv:
    """The KV cache of a layout; requests are integers."""

    def __init__(self, layout: KvLayout, blocks: int, contents: Contents) -> None:
        self.layout, self.blocks, self.contents = layout, blocks, contents
        self.pool = Pool(blocks)
        self.alignment = layout.block_tokens
        kinds = {FULL: Group, SLIDING: Window, CHUNKED: Chunk}
        self.groups = [
            kinds.get(group.kind, State)(number, group, self.pool, contents, self.alignment)
            for number, group in enumerate(layout.groups)
        ]
        self.junction: dict[int, int] = {}

    def new_step(self) -> None:
        for group in self.groups:
            group.new_step()

    def held(self, request: int) -> int:
        """Blocks of all groups that a request holds."""
        tables = [group.tables.get(request, []) for group in self.groups]
        return sum(block is not None for table in tables for block in table)

    def look_up(self, request: int, known: int) -> tuple[int, list[Table]]:
        """Tokens that a request would hit, and the blocks that it would hit them in."""
        length, hits, longest = self._hits(request, known - 1)
        self.junction[request] = longest if longest > length else 0
        return length, hits

    def _hits(self, request: int, most: int) -> tuple[int, list[Table], int]:
        if len(self.groups) == 1:
            length, hits = self._find([self.groups[0]], request, most)
            return length, hits, length
        buckets: dict[int, list[Group]] = {}
        for group in self.groups:
            buckets.setdefault(group.kind.bucket, []).append(group)
        in_turn = sorted(buckets.values(), key=lambda bucket: bucket[0].kind.kind != FULL)
        found: dict[int, Table] = {}
        full: dict[int, int] = {}
        length, longest = most, 0
        while True:
            current = length
            for bucket in in_turn:
                first = bucket[0]
                if first.number in full:
                    current = min(current, full[first.number])
                    continue
                current, hits = self._find(bucket, request, current)
                found |= {group.number: hit for group, hit in zip(bucket, hits, strict=True)}
                if first.kind.kind == FULL:
                    full[first.number] = current
                longest = max(longest, current)
            if current >= length:
                break
            length = current
            if len(in_turn) == 2 and in_turn[0][0].kind.kind == FULL:
                break
        for group in self.groups:
            if group.kind.kind == FULL:
                del found[group.number][ceil(length, group.size) :]
        return length, [found[group.number] for group in self.groups], longest

    def _find(self, bucket: list[Group], request: int, most: int) -> tuple[int, list[Table]]:
        """Longest prefix that all groups of a bucket have."""
        size, kind = bucket[0].size, bucket[0].kind

        def cached(block: int) -> list[Block] | None:
            blocks = [group.cached(request, block) for group in bucket]
            return None if None in blocks else [block for block in blocks if block is not None]

        def aligned(blocks: int) -> bool:
            return blocks * size % self.alignment == 0

        columns: list[list[Block] | None] = []
        if kind.kind in (FULL, CHUNKED):
            start = most // kind.reach * kind.reach // size if kind.kind == CHUNKED else 0
            columns = [None] * start
            while len(columns) < most // size and (blocks := cached(len(columns))):
                columns.append(blocks)
            while not aligned(len(columns)):
                columns.pop()
        elif kind.kind == SLIDING:
            needed = ceil(kind.reach - 1, size)
            columns = [None] * (most // size)
            run = 0
            for block in range(most // size - 1, -1, -1):
                blocks = cached(block)
                if blocks is None:
                    run = 0
                    continue
                if run == 0 and not aligned(block + 1):
                    continue
                columns[block] = blocks
                run += 1
                if run >= needed:
                    del columns[block + run :]
                    break
            else:
                del columns[run:]
                while not aligned(len(columns)):
                    columns.pop()
        else:
            for block in range(most // size - 1, -1, -1):
                blocks = cached(block)
                if blocks is not None and aligned(block + 1):
                    columns = [None] * block + [blocks]
                    break
        hits: list[Table] = [
            [None if blocks is None else blocks[place] for blocks in columns]
            for place in range(len(bucket))
        ]
        return len(columns) * size, hits

    def chunk(self, request: int, known: int, start: int, new: int, most: int) -> int:
        """Tokens of a chunk of a prompt, cut so that it ends where a state is kept.

        ``most`` is the largest step that there can be.
        """
        states = [group for group in self.groups if isinstance(group, State)]
        prefill_end = max(self.contents.prompt_tokens(request), known - 1)
        if not states or start >= prefill_end:
            return new
        end, size = start + new, states[0].size
        last = (known - 1) // size * size
        position = (prefill_end - 1) // self.alignment * self.alignment
        inside = end >= prefill_end and all(
            group.kind.checkpoint_tokens > 0
            and saved_inside(start, end, position, size, states[0].kind.checkpoint_tokens)
            for group in states
        )
        if inside:
            last = 0
        if end < prefill_end:
            aligned = end // size * size
            if aligned > start or size <= most:
                end = aligned
        junction = self.junction.get(request, 0)
        stops = [last]
        if start % size and not inside:
            stops.append((start // size + 1) * size)
        if start < junction < end:
            stops.append(start + (junction - start) // size * size)
        end = min([stop for stop in stops if start < stop < end], default=end)
        return max(0, end - start)

    def allocate(
        self,
        request: int,
        known: int,
        computed: int,
        new: int,
        *,
        in_flight: int = 0,
        hits: Sequence[Table] | None = None,
    ) -> bool:
        """Room for ``new`` more tokens, the request's first ones where ``hits`` are given.

        False, and nothing but blocks behind a window given back, where blocks are lacking.
        """
        prefill_end = max(self.contents.prompt_tokens(request), known - 1)
        found = hits or [[] for _ in self.groups]
        if (
            hits is not None
            and self._needed(request, known, computed, found, True, prefill_end) > self.pool.free()
        ):
            return False
        for group in self.groups:
            group.give_back(request, max(0, computed - in_flight))
        tokens = computed + new
        if self._needed(request, tokens, computed, found, False, prefill_end) > self.pool.free():
            return False
        if hits is not None:
            for group, blocks in zip(self.groups, hits, strict=True):
                group.hold(request, list(blocks), computed)
        for group in self.groups:
            group.extend(request, tokens)
        self.fill(request, min(tokens, known))
        return True

    def _needed(
        self,
        request: int,
        tokens: int,
        start: int,
        hits: Sequence[Table],
        gate: bool,
        prefill_end: int,
    ) -> int:
        return sum(
            group.needed(request, tokens, start, blocks, gate, prefill_end)
            for group, blocks in zip(self.groups, hits, strict=True)
        )

    def fill(self, request: int, tokens: int) -> None:
        """So many tokens are computed, and known."""
        if len(self.groups) > 1:
            tokens = tokens // self.alignment * self.alignment
        for group in self.groups:
            group.fill(request, tokens, self.junction.get(request, 0))

    def release(self, request: int) -> None:
        for group in self.groups:
            group.release(request)
