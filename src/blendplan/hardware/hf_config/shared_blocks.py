"""Zamba: a few blocks of attention and MLP whose weights many layers share."""

from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.names import HEADS, KV_HEADS
from blendplan.hardware.hf_config.place import Place
from blendplan.hardware.layers import Attention, FeedForward, Projection


def shared_block(
    config: Config, place: Place
) -> tuple[Attention, FeedForward, tuple[Projection, ...]]:
    """Attention, MLP and the matrices of its own that a layer with a shared block has.

    The block reads the residual stream beside the embedding: twice the width.
    """
    hidden, bits = place.hidden, place.bits
    heads = config.count(HEADS)
    kv_heads = config.count(KV_HEADS, default=heads)
    dim = config.count("attention_head_dim", default=2 * hidden // max(1, heads))
    wide = config.count("attention_hidden_size", default=2 * hidden)
    again = place.before >= config.count("num_mem_blocks", default=1)
    inner = config.count("intermediate_size", default=4 * hidden)
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads,
        key_dim=dim,
        value_dim=dim,
        projections=(
            Projection("qkv", (heads + 2 * kv_heads) * dim, wide, "n", bits),
            Projection("o", hidden, heads * dim, "k", bits),
        ),
        usual_projections=False,
        shares_weights=again,
        weight_bits=bits,
    )
    part = FeedForward(inner, shares_weights=again, weight_bits=bits)
    own = [Projection("linear", hidden, hidden, "", bits)]
    rank = config.count("adapter_rank", default=0)
    if rank and config.word("model_type") == "zamba2":
        own += [
            Projection("adapter_down", rank, hidden, "", bits),
            Projection("adapter_up", 2 * inner, rank, "n", bits),
        ]
        if config.flag("use_shared_attention_adapter", False):
            own += [
                Projection("qkv_adapter_down", 3 * rank, wide, "", bits),
                Projection("qkv_adapter_up", 3 * wide, rank, "n", bits),
            ]
    return attention, part, tuple(own)
