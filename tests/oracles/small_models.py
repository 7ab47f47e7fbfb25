"""Models with layers of every kind, of sizes that published ones have."""

from collections.abc import Sequence

from blendplan.hardware.layers import Attention, FeedForward, Layer, Projection, State
from blendplan.hardware.model import ModelSpec

FULL = Attention(heads=32, kv_heads=8, key_dim=128, value_dim=128)
WINDOW = Attention(heads=32, kv_heads=8, key_dim=128, value_dim=128, window=1024)
SMALL_WINDOW = Attention(heads=32, kv_heads=8, key_dim=128, value_dim=128, window=128)
CHUNK = Attention(heads=32, kv_heads=8, key_dim=128, value_dim=128, chunk=2048)
LATENT = Attention(128, 128, 128, 128, latent=512, rope_dim=64, query_latent=1536)
SPARSE = Attention(
    128, 128, 128, 128, latent=512, rope_dim=64, top_k=2048, indexer_heads=64, indexer_dim=128
)
BLOCKS = Attention(32, 8, 128, 128, top_k=2048, selection_block=128)
COMPRESSED = Attention(
    32, 1, 512, 512, window=128, rope_dim=64, top_k=512, compression=4, kept_once=True, packed=True
)
SHARED = Attention(32, 8, 128, 128, window=512, shares_kv=True)
DELTA = State(
    "gated_delta",
    conv_elements=3 * (2 * 16 * 128 + 32 * 128),
    state_elements=32 * 128 * 128,
    heads=16,
    state_bits=32,
    projections=(Projection("in", 12352, 4096), Projection("out", 4096, 4096, "k")),
)
MAMBA1 = State("mamba1", conv_elements=3 * 8192, state_elements=8192 * 16, heads=8192)
MAMBA2 = State("mamba2", conv_elements=3 * 6144, state_elements=64 * 64 * 128, heads=8)
LIGHTNING = State("lightning", conv_elements=0, state_elements=64 * 96 * 96, heads=64)
CONV = State("short_conv", conv_elements=2 * 4096, state_elements=0, heads=32)

MIXERS: dict[str, tuple[tuple[Attention | State, ...], ...]] = {
    "full": ((FULL,),),
    "windows": ((FULL,), (WINDOW,), (WINDOW,), (WINDOW,)),
    "small windows": ((FULL,), (SMALL_WINDOW,)),
    "only windows": ((WINDOW,),),
    "chunks": ((FULL,), (CHUNK,), (CHUNK,), (CHUNK,)),
    "latent": ((LATENT,),),
    "chosen": ((SPARSE,),),
    "blocks": ((FULL,), (BLOCKS,)),
    "compressed": ((COMPRESSED,),),
    "shared": ((FULL,), (WINDOW,), (SHARED,)),
    "gated delta": ((FULL,), (DELTA,), (DELTA,), (DELTA,)),
    "mamba1": ((FULL,), (MAMBA1,)),
    "mamba2": ((FULL,), (MAMBA2,)),
    "lightning": ((FULL,), (LIGHTNING,)),
    "convolutions": ((FULL,), (CONV,)),
    "side by side": ((FULL, MAMBA2),),
    "states only": ((MAMBA2,),),
}
"""Layers of each kind of model, which it repeats."""


def model_of(
    mixers: Sequence[tuple[Attention | State, ...]], layers: int = 12, **changed: object
) -> ModelSpec:
    """A model that repeats layers with these mixers, each with a dense feed-forward."""
    part = FeedForward(width=11008)
    repeated = tuple(Layer(mixers[row % len(mixers)], part) for row in range(layers))
    fields = {"hidden": 4096, "vocab": 32000, "max_context_tokens": 131072} | changed
    return ModelSpec(name="small", layers=repeated, **fields)  # type: ignore[arg-type]
