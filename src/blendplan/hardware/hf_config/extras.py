"""Matrices and rows that a few families have beside mixers and feed-forward."""

from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.names import HEAD_DIM, HEADS, KV_HEADS, VOCAB
from blendplan.hardware.hf_config.place import Place
from blendplan.hardware.layers import Projection


def of_layer(config: Config, layer: int, hidden: int) -> tuple[tuple[Projection, ...], int]:
    """Matrices of a layer that are part of neither, and its parameters that are no matrices."""
    found: list[Projection] = []
    small = 0
    inner = config.count("hidden_size_per_layer_input", default=0)  # Gemma 3n and 4
    if inner:
        found += [
            Projection("per_layer_gate", inner, hidden, ""),
            Projection("per_layer_up", hidden, inner, ""),
        ]
        small += hidden
    rank = config.count("laurel_rank", default=0)
    if rank:
        found += [
            Projection("laurel_down", rank, hidden, ""),
            Projection("laurel_up", hidden, rank, ""),
        ]
        small += hidden
    copies = config.count("altup_num_inputs", default=0)
    if copies:
        small += copies**2 + copies**3 + copies * hidden + 2 * hidden
    if config.count("attn_res_block_size", default=0):  # Kimi K3
        small += 4 * hidden
        config.remark("attention over the residuals of earlier layers is not priced")
    streams = config.count("hc_mult", default=0)  # DeepSeek V4: several residual streams
    if streams:
        small += 2 * (2 + streams) * streams * (streams * hidden + 1)
    return tuple(found), small


def to_image(config: Config, place: Place) -> tuple[Projection, ...]:
    """Matrices of a layer that attends to an image instead of the text (Llama 3.2 Vision).

    Its keys and values are those of the image: they do not grow with the text.
    """
    hidden, heads, bits = place.hidden, config.count(HEADS), place.bits
    dim = config.count(HEAD_DIM, default=max(1, hidden // max(1, heads)))
    kv_heads = config.count(KV_HEADS, default=heads)
    config.remark(
        "layers of cross_attention_layers attend to an image: their weights count, what they keep "
        "of the image does not"
    )
    return (
        Projection("image_q", heads * dim, hidden, "n", bits),
        Projection("image_kv", 2 * kv_heads * dim, hidden, "n", bits),
        Projection("image_o", hidden, heads * dim, "k", bits),
    )


def of_model(config: Config, layers: int, hidden: int) -> tuple[int, int]:
    """Parameters of no layer: those that each token uses, and rows that it looks up."""
    used = hidden  # the last norm
    looked_up = 0
    inner = config.count("hidden_size_per_layer_input", default=0)
    if inner:
        rows = config.count("vocab_size_per_layer_input", default=config.count(VOCAB))
        looked_up += rows * layers * inner
        used += layers * inner * hidden + inner
    copies = config.count("altup_num_inputs", default=0)
    if copies:
        used += 2 * (copies - 1) * hidden * hidden
    streams = config.count("hc_mult", default=0)
    if streams:
        used += streams * (streams * hidden + 1)
    hashed = config.count("num_hash_layers", default=0)  # experts by token id
    if hashed:
        used_per_token = config.count("num_experts_per_tok", default=0)
        looked_up += hashed * config.count(VOCAB) * used_per_token
    if config.word("model_type") in ("opt", "gpt2", "gptj", "gpt_bigcode", "gpt_neo", "biogpt"):
        used += config.count(("max_position_embeddings", "n_positions"), default=0) * hidden
    return used, looked_up
