"""`kv_layers`: what the layers of a model keep of a request on one GPU."""

import math

from blendplan.hardware.kv_compressed import compressed_layers
from blendplan.hardware.kv_entries import entry_bytes, indexer_key_bytes
from blendplan.hardware.kv_layer import CHUNKED, FULL, SLIDING, STATE, KvLayer
from blendplan.hardware.layers import Attention, State
from blendplan.hardware.model import ModelSpec, kv_bits


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
    if attention.shares_kv:
        return []
    if attention.packed:
        return compressed_layers(attention, bits)
    latent = attention.latent > 0
    reach = attention.window or attention.chunk
    kind = SLIDING if attention.window else CHUNKED if attention.chunk else FULL
    shape = attention.key_dim, attention.value_dim
    size = math.ceil(entry_bytes(attention, bits, tp))
    layers = [KvLayer(kind, size, reach=reach, latent=latent, shape=shape)]
    if attention.indexer_heads:
        key = indexer_key_bytes(attention)
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
