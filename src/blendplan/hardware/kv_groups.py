"""`kv_specs`: the groups in which vLLM's hybrid KV cache manager puts the layers of a model.

All groups draw blocks from one pool, so a block of each must take equally many bytes: layers with
small pages get more tokens per block, or padding, and groups have equally many layers.

Rules of vllm/v1/core/kv_cache_utils.py (`get_kv_cache_groups`) and, for the block size of models
with states, vllm/platforms/interface.py (`_align_hybrid_block_size`), both 0.32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layer import CHUNKED, FULL, SLIDING, STATE, KvLayer

# Tokens that the block of latent attention is a multiple of beside states.
_LATENT_TOKENS = 128


@dataclass(frozen=True)
class KvSpec:
    """A layer and the page that it has in every block of its group.

    Attributes:
        layer: what it keeps.
        block_tokens: tokens of a page.
        page_bytes: of a page, padding included.
    """

    layer: KvLayer
    block_tokens: int
    page_bytes: int


def kv_specs(
    layers: Sequence[KvLayer], block_size: int, kernel_tokens: int, hybrid: bool
) -> list[list[list[KvSpec]]]:
    """Buckets of like layers, the groups of each bucket, and the layers of each group.

    Args:
        layers: of the model, in its order.
        block_size: tokens of a block as asked for.
        kernel_tokens: fewest tokens that the attention kernels take as a block.
        hybrid: whether the hybrid KV cache manager is on.

    Raises:
        BlendplanError: layers that vLLM cannot put in one pool.
    """
    if not hybrid:
        return [[_one_group(layers, block_size, kernel_tokens)]]
    specs = _specs(layers, block_size, kernel_tokens)
    if _alike(specs):
        return [[specs]]
    try:
        return equal_groups(_equal_pages(specs))
    except _UnequalPagesError as error:
        # Latent attention beside plain windows that no page fits: all tokens are kept.
        has_window = any(spec.layer.kind == SLIDING for spec in specs)
        if not has_window or any(spec.layer.kind == CHUNKED for spec in specs):
            raise error.refused() from None
        promoted = _specs(all_tokens(layers), block_size, kernel_tokens)
        if not _alike(promoted):
            raise error.refused() from None
        return [[promoted]]


class _UnequalPagesError(Exception):
    """A page of latent attention that does not divide the largest page."""

    def __init__(self, page_bytes: int, largest_bytes: int) -> None:
        super().__init__()
        self.pages = page_bytes, largest_bytes

    def refused(self) -> BlendplanError:
        page, largest = self.pages
        return BlendplanError(
            f"the KV cache cannot hold pages of {page} and {largest} bytes in one pool; "
            "vLLM refuses such a model: take another block size or KV dtype"
        )


def all_tokens(layers: Sequence[KvLayer]) -> list[KvLayer]:
    """Windows and chunks beside full attention, stored for all tokens."""
    if all(layer.kind != FULL for layer in layers):
        return list(layers)
    return [
        replace(layer, kind=FULL, reach=0) if layer.kind in (SLIDING, CHUNKED) else layer
        for layer in layers
    ]


def _one_group(layers: Sequence[KvLayer], block_size: int, kernel_tokens: int) -> list[KvSpec]:
    """All layers in one group, as without the hybrid manager."""
    specs = _specs(layers, block_size, kernel_tokens)
    if _alike(specs):
        return specs
    specs = _specs(all_tokens(layers), block_size, kernel_tokens)
    windows, chunks = (
        {layer.reach for layer in layers if layer.kind == kind} for kind in (SLIDING, CHUNKED)
    )
    latent = any(layer.latent for layer in layers)
    several = max(len(windows), len(chunks)) > 1 and not latent
    if several or not _alike(specs):
        raise BlendplanError(
            "without the hybrid KV cache manager, vLLM has no place for layers of these kinds "
            "together; turn it on"
        )
    return specs


def _specs(layers: Sequence[KvLayer], block_size: int, kernel_tokens: int) -> list[KvSpec]:
    """Every layer with a page of its own size, all of one number of tokens."""
    attention = [layer for layer in layers if layer.kind != STATE]
    states = [layer for layer in layers if layer.kind == STATE]
    tokens, state_page = block_size, 0
    if attention and states:
        # One page of attention holds the largest state.
        first = attention[0]
        least = max(kernel_tokens, block_size, _LATENT_TOKENS if first.latent else 0)
        largest = max(layer.state_bytes for layer in states)
        tokens = least * -(-largest // (least * first.bytes_per_token))
        tokens = max(block_size, kernel_tokens * -(-tokens // kernel_tokens))
        state_page = tokens * first.bytes_per_token
    return [
        KvSpec(layer, tokens, max(layer.state_bytes, state_page))
        if layer.kind == STATE
        else KvSpec(layer, tokens, layer.bytes_per_token * tokens)
        for layer in layers
    ]


def _alike(specs: Sequence[KvSpec]) -> bool:
    """Whether all need the same number of blocks at every time: one group holds them."""
    first = specs[0].layer
    if first.kind != STATE:
        return all(
            (spec.layer.kind, spec.layer.reach) == (first.kind, first.reach) for spec in specs
        )
    own = first.checkpoint_tokens, specs[0].page_bytes
    return all(
        spec.layer.kind == STATE and (spec.layer.checkpoint_tokens, spec.page_bytes) == own
        for spec in specs
    )


def _equal_pages(specs: Sequence[KvSpec]) -> list[KvSpec]:
    """The same with pages of one size: more tokens in a block, or padding."""
    largest = max(spec.page_bytes for spec in specs)
    equal = []
    for spec in specs:
        tokens = spec.block_tokens
        if spec.layer.kind != STATE:
            if largest % spec.page_bytes == 0:
                tokens *= largest // spec.page_bytes
            elif spec.layer.latent:
                raise _UnequalPagesError(spec.page_bytes, largest)
        equal.append(KvSpec(spec.layer, tokens, largest))
    return equal


def equal_groups(specs: Sequence[KvSpec]) -> list[list[list[KvSpec]]]:
    """Equal layers in groups of equally many, as far as the numbers go."""
    buckets: dict[KvSpec, list[KvSpec]] = {}
    for spec in specs:
        buckets.setdefault(spec, []).append(spec)
    sizes = [len(bucket) for bucket in buckets.values()]
    width = min(sizes)
    if max(sizes) < 1.5 * width:
        width = max(sizes)
    return [
        [bucket[first::groups] for first in range(groups)]
        for bucket in buckets.values()
        for groups in [-(-len(bucket) // width)]
    ]
