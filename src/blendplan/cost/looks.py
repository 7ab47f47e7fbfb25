"""`looks_of`: the ways in which the layers of a model look at earlier tokens.

A layer may look in more than one way: sparse attention chooses its tokens by an indexer that looks
at all of them, compressed attention looks at a window and at what stands for the rest. Looks that
reach equally far are one kind of `Reach`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.reach import ALL_TOKENS, OWN_TOKEN, Reach, pairs_up_to
from blendplan.hardware.kv_entries import entry_bytes, indexer_key_bytes
from blendplan.hardware.layers import Attention
from blendplan.hardware.linear_shapes import kv_heads_per_gpu
from blendplan.hardware.model import ModelSpec

# Keys of an indexer are fp8 values; see `indexer_key_bytes`.
INDEXER_BITS = 8.0


@dataclass(frozen=True)
class Look:
    """One way to look at earlier tokens, on one GPU.

    Attributes:
        kind: ``heads``, each KV head with keys and values of its own; ``latent``, one vector for
            all heads; ``indexer``, which only scores keys.
        layers: that look so.
        tokens: reach, 0 for all; see `Reach`.
        chunked: whether the reach is a chunk.
        every: tokens of the context that are looked at as one.
        heads, kv_heads: on this GPU.
        key_dim, value_dim: elements of a query and of a result of a head.
        expanded_dim: elements of a query once a latent vector is multiplied out, as for prompts.
        pair_flop: FLOP of a (query, key) pair in one layer.
        read_bytes: bytes that a decode reads for a token of its context in one layer.
    """

    kind: str
    layers: int
    tokens: int
    chunked: bool
    every: int
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    expanded_dim: int
    pair_flop: float
    read_bytes: float

    @property
    def reach(self) -> tuple[int, bool]:
        """What tells kinds of `Reach` apart."""
        return self.tokens, self.chunked

    def seen(self, context: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tokens that the last one of a context looks at; float64, of any shape."""
        if not self.tokens:
            return context
        if self.chunked:
            return np.asarray((context - 1.0) % self.tokens + 1.0)
        return np.minimum(context, self.tokens)

    def seen_up_to(self, context: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of that over contexts of 1 to so many tokens; float64, of any shape."""
        ones = np.ones(1)
        kind = Reach(np.array([self.tokens]), np.array([self.chunked]), ones, ones)
        return pairs_up_to(kind, context)


def looks_of(model: ModelSpec, tp: int = 1) -> list[Look]:
    """All ways in which a model looks at earlier tokens; none where it has no attention."""
    return [
        look
        for attention, layers in model.attentions.items()
        for look in _looks(attention, layers, model.kv_bits, tp)
    ]


def reach_of(
    looks: Sequence[Look], pair_s: Sequence[float], read_s: Sequence[float]
) -> tuple[Reach, float, float]:
    """How far back a model looks, and the price of a pair and of a read over all of its layers.

    Args:
        looks: k of them.
        pair_s, read_s: price of a pair and of a token read, over the layers of each look.
    """
    found: dict[tuple[int, bool], tuple[float, float]] = {}
    for look, pair, read in zip(looks, pair_s, read_s, strict=True):
        before = found.get(look.reach, (0.0, 0.0))
        found[look.reach] = (before[0] + pair, before[1] + read)
    pairs = sum(pair for pair, _ in found.values())
    reads = sum(read for _, read in found.values())
    if not found or (list(found) == [(0, False)]):
        return (ALL_TOKENS if found else OWN_TOKEN), pairs, reads
    tokens, chunked = zip(*found, strict=True)
    shares = (
        np.array([price / total if total else 1.0 / len(found) for price in prices])
        for prices, total in zip(zip(*found.values(), strict=True), (pairs, reads), strict=True)
    )
    return Reach(np.array(tokens, np.int64), np.array(chunked, np.bool_), *shares), pairs, reads


def _looks(attention: Attention, layers: int, kv_bits: float, tp: int) -> list[Look]:
    heads = attention.heads // tp
    main = Look(
        kind="latent" if attention.packed else "heads",
        layers=layers,
        tokens=attention.reach,
        chunked=bool(attention.chunk) and attention.reach == attention.chunk,
        every=1,
        heads=heads,
        kv_heads=kv_heads_per_gpu(attention, tp),
        key_dim=attention.key_dim,
        value_dim=attention.value_dim,
        expanded_dim=attention.key_dim,
        pair_flop=2.0 * (attention.key_dim + attention.value_dim) * attention.heads / tp,
        read_bytes=entry_bytes(attention, kv_bits, tp),
    )
    if attention.latent:
        main = _latent(main, attention, tp)
    looks = _compressed(main, attention) if attention.compression else [main]
    if attention.top_k and attention.indexer_heads:
        looks.append(_indexer(attention, layers))
    elif attention.top_k and attention.selection_block > 1:
        # Blocks are chosen by one key that stands for all of theirs.
        looks.append(
            replace(
                main,
                tokens=0,
                chunked=False,
                every=attention.selection_block,
                pair_flop=main.pair_flop / 2 / attention.selection_block,
                read_bytes=main.read_bytes / 2 / attention.selection_block,
            )
        )
    return looks


def _indexer(attention: Attention, layers: int) -> Look:
    """Scores of all tokens, or of what stands for a few of them; every GPU scores for itself."""
    every = max(1, attention.compression)
    return Look(
        kind="indexer",
        layers=layers,
        tokens=0,
        chunked=False,
        every=every,
        heads=attention.indexer_heads,
        kv_heads=1,
        key_dim=attention.indexer_dim,
        value_dim=0,
        expanded_dim=attention.indexer_dim,
        pair_flop=2.0 * attention.indexer_heads * attention.indexer_dim / every,
        read_bytes=indexer_key_bytes(attention) / every,
    )


def _latent(main: Look, attention: Attention, tp: int) -> Look:
    """Latent attention; a prompt is multiplied out into keys and values unless it is sparse."""
    kept = attention.latent + attention.rope_dim
    per_head = attention.key_dim + attention.rope_dim + attention.value_dim
    if attention.top_k:
        per_head = kept + attention.latent
    return replace(
        main,
        kind="latent",
        kv_heads=1,
        key_dim=kept,
        value_dim=attention.latent,
        expanded_dim=attention.key_dim + attention.rope_dim,
        pair_flop=2.0 * per_head * attention.heads / tp,
    )


def _compressed(main: Look, attention: Attention) -> list[Look]:
    """A window of single tokens, and behind it one vector for every few, all of them or some."""
    every = attention.compression
    window = replace(main, tokens=attention.window, chunked=False)
    rest = replace(
        main,
        tokens=attention.top_k * every,
        chunked=False,
        every=every,
        pair_flop=main.pair_flop / every,
        read_bytes=main.read_bytes / every,
    )
    return [window, rest] if attention.window else [rest]
