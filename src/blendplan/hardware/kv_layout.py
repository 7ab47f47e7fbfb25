"""`KvLayout`: how the KV cache of a model is laid out, and what a request takes of it.

The pool has blocks of one size in bytes. Layers that need the same blocks at every time are a
group; every group holds blocks of its own for each request. A block of full attention is held to
the end, one behind a window is given back, a state takes one block however long the request is.

Memory is counted in *slots*: blocks times `block_tokens`. With one group of full attention, a slot
is a token.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from blendplan.checks.arguments import dictionary, whole
from blendplan.errors import BlendplanError
from blendplan.hardware.kv_groups import kv_specs
from blendplan.hardware.kv_layer import CHUNKED, FULL, KINDS, SLIDING, STATE, KvLayer
from blendplan.hardware.kv_packed import packed_groups, packs

# vLLM's attention kernels take blocks of 16 tokens (FlashAttention, FlashInfer, Triton).
KERNEL_TOKENS = 16
_MOST = 2**53


@dataclass(frozen=True)
class KvGroup:
    """Layers that have their blocks in common.

    Attributes:
        kind: ``full``, ``sliding``, ``chunked`` or ``state``; see `KvLayer`.
        layers: how many there are.
        reach: tokens of the window or chunk; 0 for the other kinds.
        block_tokens: tokens of a block.
        page_bytes: bytes that all of its layers have in a block.
        bucket: number of the layers' kind; groups of equal layers have the same.
        checkpoint_tokens: as of `KvLayer`.
        most_blocks: most blocks of the group that one request must find free to be admitted; 0
            where there is no such limit.
    """

    kind: str
    layers: int
    reach: int
    block_tokens: int
    page_bytes: int
    bucket: int = 0
    checkpoint_tokens: int = 0
    most_blocks: int = 0


@dataclass(frozen=True)
class KvLayout:
    """The groups of a model's layers, in vLLM's order.

    Attributes:
        groups: at least one.
    """

    groups: tuple[KvGroup, ...]

    @property
    def plain(self) -> bool:
        """Whether all layers keep all tokens, so that a slot is a token."""
        return len(self.groups) == 1 and self.groups[0].kind == FULL

    @property
    def has_states(self) -> bool:
        """Whether layers have states, which chunks of prompts are aligned for."""
        return any(group.kind == STATE for group in self.groups)

    @property
    def block_tokens(self) -> int:
        """Tokens of the scheduler's block: whole blocks of every group."""
        return math.lcm(*(group.block_tokens for group in self.groups))

    @property
    def least_chunk_tokens(self) -> int:
        """Fewest prompt tokens that a step must be let compute; 0 for any.

        Chunks of prompts end where states are kept: with less than a block, one might never begin.
        """
        return self.block_tokens if self.has_states else 0

    @property
    def hash_tokens(self) -> int:
        """Tokens by which contents are told apart: every group's block is a multiple."""
        return math.gcd(*(group.block_tokens for group in self.groups))

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block of the pool, whichever group has it."""
        return max(group.page_bytes for group in self.groups)

    @property
    def growth(self) -> int:
        """Slots that a request's every further token takes: groups that keep all tokens."""
        return sum(
            self.block_tokens // group.block_tokens for group in self.groups if group.kind == FULL
        )

    def blocks(self, available_bytes: float) -> int:
        """Usable blocks in that many bytes; vLLM keeps one as a placeholder.

        It is not taken off where all layers keep all tokens: there it is less than a thousandth.
        """
        blocks = int(available_bytes // self.bytes_per_block)
        return max(0, blocks if self.plain else blocks - 1)

    def bytes_for_blocks(self, blocks: int) -> int:
        """Least bytes in which there are so many usable blocks."""
        return (blocks if self.plain else blocks + 1) * self.bytes_per_block

    def held_tokens(self, tokens: Any) -> Any:
        """Slots that a request holds while it decodes, without rounding to blocks.

        Args:
            tokens: of the request in the cache, at least 1; a number, or int64 [n].
        """
        return sum(
            _held(group, tokens) * (self.block_tokens // group.block_tokens)
            for group in self.groups
        )

    def held_blocks(self, tokens: Any) -> Any:
        """Blocks of all groups that a request holds while it decodes. Args: as above."""
        return sum(
            _ceil(tokens, group.block_tokens) - _passed(group, tokens) // group.block_tokens
            for group in self.groups
        )

    def kv_bytes(self, tokens: Any) -> Any:
        """Bytes of those blocks. Args: as above."""
        return self.held_blocks(tokens) * self.bytes_per_block

    def needed_blocks(self, tokens: Any) -> Any:
        """Most blocks that a request of so many tokens needs at any time. Args: as above."""
        return sum(_at_most(_ceil(tokens, g.block_tokens), g.most_blocks) for g in self.groups)

    def longest_request(self, blocks: int) -> int:
        """Tokens of the longest request that so many blocks are enough for; 0 for none."""
        if self.plain:
            return blocks * self.block_tokens
        least, most = 0, _MOST
        if self.needed_blocks(most) <= blocks:
            return most
        while most - least > 1:
            middle = (least + most) // 2
            if self.needed_blocks(middle) <= blocks:
                least = middle
            else:
                most = middle
        return least

    def limited(self, *, in_flight_tokens: int, max_model_len: int) -> "KvLayout":
        """The same with what vLLM wants free before it admits a request.

        Args:
            in_flight_tokens: most tokens of the steps under way: max_num_batched_tokens, and twice
                that with asynchronous scheduling.
            max_model_len: longest context.
        """
        groups = [
            replace(group, most_blocks=_limit(group, in_flight_tokens, max_model_len))
            for group in self.groups
        ]
        return KvLayout(tuple(groups))

    def as_metadata(self) -> list[dict[str, Any]]:
        """The same as JSON values."""
        return [asdict(group) for group in self.groups]

    @classmethod
    def from_metadata(cls, name: str, groups: object) -> "KvLayout":
        """The layout of `as_metadata`.

        Raises:
            BlendplanError: it is something else.
        """
        if not isinstance(groups, list) or not 0 < len(groups) <= 1000:
            raise BlendplanError(f"{name} must be a list of 1 to 1000 groups")
        layout = cls(tuple(_group(f"{name}[{i}]", group) for i, group in enumerate(groups)))
        before = KvGroup("", 0, 0, 1, 1, bucket=-1)
        for place, group in enumerate(layout.groups):
            alike = (group.kind, group.reach, group.block_tokens, group.checkpoint_tokens) == (
                (before.kind, before.reach, before.block_tokens, before.checkpoint_tokens)
            )
            if group.bucket != before.bucket + 1 and not (alike and group.bucket == before.bucket):
                raise BlendplanError(
                    f"{name}[{place}].bucket is {group.bucket}; buckets are 0, 1, 2, ..., and the "
                    "groups of one are alike"
                )
            before = group
        return layout


def kv_layout(
    layers: Sequence[KvLayer],
    block_size: int = 16,
    *,
    kernel_tokens: int = KERNEL_TOKENS,
    hybrid: bool = True,
) -> KvLayout:
    """The layout that vLLM 0.32 gives these layers.

    Args:
        layers: of the model, in its order.
        block_size: tokens of a block; states may make it larger, and kernels fix it.
        kernel_tokens: fewest tokens that the attention kernels take as a block.
        hybrid: whether the hybrid KV cache manager is on, as it is by default; without it, windows
            and chunks beside full attention are stored for all tokens.

    Raises:
        BlendplanError: no layer keeps anything, or vLLM cannot put them in one pool.
    """
    if not layers:
        raise BlendplanError("no layer of the model keeps anything; it has no KV cache to plan for")
    buckets = (
        packed_groups(layers, block_size, hybrid)
        if packs(layers)
        else kv_specs(layers, block_size, kernel_tokens, hybrid)
    )
    return KvLayout(
        tuple(
            KvGroup(
                kind=group[0].layer.kind,
                layers=len(group),
                reach=group[0].layer.reach,
                block_tokens=group[0].block_tokens,
                page_bytes=sum(spec.page_bytes for spec in group),
                bucket=bucket,
                checkpoint_tokens=group[0].layer.checkpoint_tokens,
            )
            for bucket, groups in enumerate(buckets)
            for group in groups
        )
    )


def _held(group: KvGroup, tokens: Any) -> Any:
    """Tokens of which the group holds something, those that fill up a state's block included."""
    if group.kind == STATE:
        return tokens * 0 + group.block_tokens
    return tokens - _passed(group, tokens)


def _passed(group: KvGroup, tokens: Any) -> Any:
    """Of the tokens of a decoding request, how many the group needs no more."""
    if group.kind == SLIDING:
        return (tokens - group.reach) * (tokens > group.reach)
    if group.kind == CHUNKED:
        return (tokens - 1) // group.reach * group.reach
    if group.kind == STATE:
        return (_ceil(tokens, group.block_tokens) - 1) * group.block_tokens
    return tokens * 0


def _limit(group: KvGroup, in_flight_tokens: int, max_model_len: int) -> int:
    """`max_admission_blocks_per_request` of vllm/v1/kv_cache_interface.py."""
    if group.kind == SLIDING:
        tokens = min(group.reach - 1 + in_flight_tokens, max_model_len)
        return _ceil(tokens, group.block_tokens) + 1
    if group.kind == CHUNKED:
        return _ceil(min(group.reach + in_flight_tokens, max_model_len), group.block_tokens)
    if group.kind == STATE:
        return 2 + (group.checkpoint_tokens > 0)
    return 0


def _ceil(value: Any, divisor: int) -> Any:
    return -(-value // divisor)


def _at_most(blocks: Any, limit: int) -> Any:
    return blocks if limit == 0 else blocks - (blocks - limit) * (blocks > limit)


def _group(name: str, value: object) -> KvGroup:
    """A group of a plan's metadata."""
    given: Mapping[str, Any] = dictionary(name, value, "it must be an object")
    if given.get("kind") not in KINDS:
        raise BlendplanError(f"{name}.kind must be one of {', '.join(KINDS)}")
    least = {"layers": 1, "block_tokens": 1, "page_bytes": 1}
    least["reach"] = int(given["kind"] in (SLIDING, CHUNKED))
    names = [key for key in KvGroup.__dataclass_fields__ if key != "kind"]
    if set(given) != {"kind", *names}:
        raise BlendplanError(f"{name} must have the keys kind, {', '.join(names)}")
    numbers = {key: whole(f"{name}.{key}", given[key], least.get(key, 0), _MOST) for key in names}
    return KvGroup(kind=given["kind"], **numbers)
