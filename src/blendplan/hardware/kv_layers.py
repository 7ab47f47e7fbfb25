"""`KvLayer`: what one layer keeps of a request on one GPU."""

import math
from dataclasses import dataclass

from blendplan.errors import BlendplanError
from blendplan.hardware.layers import Attention, State
from blendplan.hardware.model import ModelSpec, kept_elements, kv_bits

FULL, SLIDING, CHUNKED, STATE = "full", "sliding", "chunked", "state"
KINDS = (FULL, SLIDING, CHUNKED, STATE)
# A key of an indexer is kept in fp8, with a scale of 4 bytes (DeepSeek-V3.2, GLM-5).
_SCALE_BYTES = 4


@dataclass(frozen=True)
class KvLayer:
    """What one layer keeps on one GPU, as vLLM 0.32 has it (vllm/v1/kv_cache_interface.py).

    A layer that reuses the keys and values of another one keeps nothing: leave it out. One that
    has attention and a state beside it keeps two things: give both.

    Attributes:
        kind: ``full`` keeps all tokens, ``sliding`` those of a window, ``chunked`` those of the
            chunk at hand (Llama 4), ``state`` one state of constant size (Mamba, linear attention).
        bytes_per_token: of keys and values, or of the latent vector; 0 for a state.
        state_bytes: of the state; 0 for attention.
        reach: tokens of the window or chunk, the query's own included; 0 for the other kinds.
        latent: multi-head latent attention, one vector for all heads.
        shape: what sets layers of equal size apart, as heads and their dimensions: vLLM puts only
            equal layers in one group.
        checkpoint_tokens: a state can be saved inside a chunk, at a multiple of so many tokens
            from its start; 0 where it cannot. Mamba-2 can at any token.

    Raises:
        BlendplanError: an unknown kind, or sizes that do not go with it.
    """

    kind: str
    bytes_per_token: int
    state_bytes: int = 0
    reach: int = 0
    latent: bool = False
    shape: tuple[int, ...] = ()
    checkpoint_tokens: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BlendplanError(f"a layer keeps {self.kind!r}; known kinds are {', '.join(KINDS)}")
        size = self.state_bytes if self.kind == STATE else self.bytes_per_token
        if type(size) is not int or size < 1:
            raise BlendplanError(f"a {self.kind} layer keeps {size!r} bytes; it must be at least 1")
        bounded = self.kind in (SLIDING, CHUNKED)
        if type(self.reach) is not int or (self.reach >= 1) is not bounded:
            raise BlendplanError(
                f"a {self.kind} layer reaches {self.reach!r} tokens back; "
                f"it must be {'at least 1' if bounded else '0'}"
            )


def kv_layers(model: ModelSpec, *, tp: int = 1, kv_dtype: str = "auto") -> list[KvLayer]:
    """What the layers of a model keep on one GPU of a tensor-parallel group, in their order.

    Raises:
        BlendplanError: an unknown dtype.
    """
    bits = kv_bits(model, kv_dtype)
    of_mixer = {
        mixer: _of_attention(mixer, tp, bits)
        if isinstance(mixer, Attention)
        else [_of_state(mixer, tp)]
        for layer in model.layer_counts
        for mixer in layer.mixers
    }
    return [kept for layer in model.layers for mixer in layer.mixers for kept in of_mixer[mixer]]


def _of_attention(attention: Attention, tp: int, bits: float) -> list[KvLayer]:
    elements = kept_elements(attention, tp)
    if not elements:
        return []
    size = elements * bits / 8
    latent = attention.latent > 0
    if attention.compression:
        return [KvLayer(FULL, math.ceil(size / attention.compression), latent=latent)]
    reach = attention.window or attention.chunk
    kind = SLIDING if attention.window else CHUNKED if attention.chunk else FULL
    shape = elements, attention.key_dim, attention.value_dim
    layers = [KvLayer(kind, math.ceil(size), reach=reach, latent=latent, shape=shape)]
    if attention.indexer_heads:
        key = attention.indexer_dim + _SCALE_BYTES
        layers.append(KvLayer(FULL, key, latent=latent, shape=(attention.indexer_dim,)))
    return layers


def _of_state(state: State, tp: int) -> KvLayer:
    bits = state.conv_elements * state.conv_bits + state.state_elements * state.state_bits
    return KvLayer(
        STATE,
        0,
        state_bytes=math.ceil(bits / 8 / tp),
        shape=(state.conv_elements, state.state_elements),
        checkpoint_tokens=int(state.kind == "mamba2"),
    )
