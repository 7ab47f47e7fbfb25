"""`packed_groups`: the groups of layers whose pages have sizes of their own, and share blocks.

A block of the pool is as large as the widest group; in it, the pages of a group's layers stand side
by side. So pages need not be equal, and groups are made to be about equally wide.

Rules of vllm/v1/core/kv_cache_utils.py (`_get_packed_kv_cache_groups`, 0.32), which holds where the
kernels want all layers of a block together, as DeepSeek V4's do.
"""

from collections.abc import Sequence

from blendplan.errors import BlendplanError
from blendplan.hardware.kv_groups import KvSpec, all_tokens, equal_groups
from blendplan.hardware.kv_layer import SLIDING, STATE, KvLayer

_Pages = dict[int, list[KvSpec]]
"""Layers of a bucket by the bytes of their pages, in order of appearance."""


def packs(layers: Sequence[KvLayer]) -> bool:
    """Whether kernels fix pages of the layers."""
    return any(layer.page_bytes for layer in layers)


def packed_groups(
    layers: Sequence[KvLayer], block_size: int, hybrid: bool
) -> list[list[list[KvSpec]]]:
    """Buckets of layers that need the same blocks, groups of each, and the layers of each group.

    Args:
        layers: of the model, in its order.
        block_size: tokens of a block, of layers whose kernels do not fix it.
        hybrid: whether the hybrid KV cache manager is on; without it, windows keep all tokens.

    Raises:
        BlendplanError: states among the layers.
    """
    if any(layer.kind == STATE for layer in layers):
        raise BlendplanError("states beside pages of different sizes are not modelled")
    specs = [_spec(layer, block_size) for layer in (layers if hybrid else all_tokens(layers))]
    buckets: dict[tuple[str, int, int], list[KvSpec]] = {}
    for spec in specs:
        kind = spec.layer.kind, spec.layer.reach, spec.block_tokens
        buckets.setdefault(kind, []).append(spec)
    if len(buckets) == 1:
        return [[specs]]
    if len(_by_page(specs)) == 1:
        return equal_groups(specs)
    counts = _groups_of([_by_page(bucket) for bucket in buckets.values()])
    return [
        [bucket] if count == 1 else _split(bucket, count)
        for bucket, count in zip(buckets.values(), counts, strict=True)
    ]


def _spec(layer: KvLayer, block_size: int) -> KvSpec:
    tokens = layer.block_tokens or block_size
    return KvSpec(layer, tokens, layer.page_bytes or layer.bytes_per_token * tokens)


def _by_page(specs: Sequence[KvSpec]) -> _Pages:
    pages: _Pages = {}
    for spec in specs:
        pages.setdefault(spec.page_bytes, []).append(spec)
    return pages


def _groups_of(buckets: Sequence[_Pages]) -> list[int]:
    """Into how many groups each bucket is split."""
    balanced = [pages for pages in buckets if _balanced(pages)]
    # Layers of one kind with pages of several sizes, one of each at a time, stay together.
    together = max((_most(pages) for pages in balanced if len(pages) > 1), default=0)
    if together:
        repeats = _least_padding([_most(pages) for pages in balanced], together)
        return [_ceil(_most(pages), repeats) if _balanced(pages) else 1 for pages in buckets]
    # Otherwise windows alone are split, as far as a block has room that others need anyway.
    block = max(_widest(pages, _layers(pages) if _window(pages) else 1) for pages in buckets)
    return [
        _ceil(_layers(pages), max(block // next(iter(pages)), 1))
        if _window(pages) and _balanced(pages)
        else 1
        for pages in buckets
    ]


def _split(bucket: Sequence[KvSpec], count: int) -> list[list[KvSpec]]:
    """Groups of a bucket, each with equally many layers of every page size."""
    repeats = list(zip(*_by_page(bucket).values(), strict=True))
    return [[spec for repeat in repeats[i::count] for spec in repeat] for i in range(count)]


def _least_padding(sizes: Sequence[int], least: int) -> int:
    """A divisor of at least so much that sizes need least padding to; the largest such."""
    candidates = range(least, max(sizes) + 1)
    return min(candidates, key=lambda d: (sum(-size % d for size in sizes), -d), default=least)


def _balanced(pages: _Pages) -> bool:
    """Whether there are equally many layers of every page size."""
    return len({len(specs) for specs in pages.values()}) == 1


def _window(pages: _Pages) -> bool:
    return next(iter(pages.values()))[0].layer.kind == SLIDING


def _most(pages: _Pages) -> int:
    return max(map(len, pages.values()))


def _layers(pages: _Pages) -> int:
    return sum(map(len, pages.values()))


def _widest(pages: _Pages, count: int) -> int:
    """Bytes of the widest of so many groups."""
    return sum(_ceil(len(specs), count) * page for page, specs in pages.items())


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
