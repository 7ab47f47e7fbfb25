"""The softmax attention of a layer."""

from dataclasses import replace

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.assumptions import remark_on_heads
from blendplan.hardware.hf_config.families import Family
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.names import BIAS, HEAD_DIM, HEADS, KV_HEADS
from blendplan.hardware.hf_config.place import Place
from blendplan.hardware.hf_config.sparse import block_sparse, compressed, indexer
from blendplan.hardware.hf_config.windows import sliding_window
from blendplan.hardware.kv_entries import FP8_BITS, entry_bytes
from blendplan.hardware.layers import Attention, Projection


def attention_of(config: Config, family: Family, place: Place) -> Attention:
    """The attention of a layer that has one."""
    heads = _heads(config, place)
    if config.count("compress_ratios", default=0, layer=place.layer) or config.says("o_lora_rank"):
        found = compressed(config, place, heads)
    elif config.count("kv_lora_rank", default=0, layer=place.layer):
        found = _latent(config, family, place, heads)
    else:
        found = _by_heads(config, family, place, heads)
    window = sliding_window(config) if "sliding" in place.kind else 0
    chunk = config.count("attention_chunk_size", default=0) if place.kind == "chunked" else 0
    found = replace(found, window=window or found.window, chunk=chunk)
    return replace(found, shares_kv=shares_kv(config, place.layer, place.layers))


def _heads(config: Config, place: Place) -> int:
    heads = _stated_heads(config, place)
    if not heads:
        raise BlendplanError(f"{config.where}: {HEADS[0]} is 0 in a layer with attention")
    return heads


def _stated_heads(config: Config, place: Place) -> int:
    sliding = "sliding" in place.kind
    other = config.part("attention_other_setting") if sliding else None
    if other is not None:
        return other.count(HEADS)
    names = ("num_attention_heads_per_layer",)
    if config.says(names):
        return config.count(names, layer=place.layer)
    swa = ("swa_num_attention_heads", "num_sliding_attention_heads")
    if sliding and config.says(swa):
        return config.count(swa, layer=place.layer)
    return config.count(HEADS, layer=place.layer)


def _by_heads(config: Config, family: Family, place: Place, heads: int) -> Attention:
    """Keys and values of each KV head are kept."""
    layer, sliding = place.layer, "sliding" in place.kind
    remark_on_heads(config, place.hidden, heads)
    key_dim = config.count(HEAD_DIM, default=max(1, place.hidden // heads), layer=layer)
    value_dim = config.count("v_head_dim", default=key_dim, layer=layer)
    kv_heads = _kv_heads(config, place, heads)
    shared_values = False
    if sliding and config.says(("swa_head_dim", "swa_num_key_value_heads")):  # MiMo-V2
        key_dim = config.count("swa_head_dim", default=key_dim, layer=layer)
        value_dim = config.count("swa_v_head_dim", default=value_dim, layer=layer)
        kv_heads = config.count("swa_num_key_value_heads", default=kv_heads, layer=layer)
    if place.kind == "full" and config.value("global_head_dim") is not None:  # Gemma 4
        key_dim = value_dim = config.count("global_head_dim", default=key_dim)
    if place.kind == "full" and config.flag("attention_k_eq_v", False):
        shared_values = True
        kv_heads = config.count("num_global_key_value_heads", default=kv_heads)
    other = config.part("attention_other_setting") if sliding else None
    if other is not None:  # Step
        kv_heads = other.count(KV_HEADS, default=kv_heads)
        key_dim = value_dim = other.count(HEAD_DIM, default=key_dim)
    projections, top_k, index = block_sparse(config, place)
    shared_queries = config.count("share_q_dim", default=0)  # Step 3
    if shared_queries:
        projections += (
            Projection(
                "qkv_a", shared_queries + 2 * kv_heads * key_dim, place.hidden, "", place.bits
            ),
            Projection("q_b", heads * key_dim, shared_queries, "n", place.bits),
            Projection("o", place.hidden, heads * value_dim, "k", place.bits),
        )
    wide = heads * key_dim + (1 if shared_values else 2) * kv_heads * key_dim
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        top_k=top_k,
        indexer_heads=index[0],
        indexer_dim=index[1],
        selection_block=index[2],
        keys_are_values=shared_values,
        usual_projections=not shared_queries,
        projections=projections + _gate(config, family, place, heads, value_dim),
        other_parameters=_small(config, family, heads, kv_heads, key_dim, wide),
        weight_bits=place.bits,
    )


def _kv_heads(config: Config, place: Place, heads: int) -> int:
    falcon = config.word("model_type") in ("falcon", "refinedweb", "refinedwebmodel")
    grouped = config.flag("new_decoder_architecture", False)
    if falcon and config.flag("multi_query", True) and not grouped:
        return 1
    grouped_queries = "multi_query_attention"  # ChatGLM
    if config.flag(grouped_queries, False):
        return config.count("multi_query_group_num", default=1) or _no_kv_heads(config)
    if config.says(grouped_queries):
        return heads
    if config.word("model_type") == "gpt_bigcode" and config.flag("multi_query", True):
        return 1
    inner = config.part("attn_config")  # DBRX, MPT
    if inner is not None:
        return inner.count(("kv_n_heads",), default=heads)
    return config.count(KV_HEADS, default=heads, layer=place.layer) or _no_kv_heads(config)


def _no_kv_heads(config: Config) -> int:
    raise BlendplanError(f"{config.where}: kv_heads is 0; expected at least 1 KV head")


def _small(
    config: Config, family: Family, heads: int, kv_heads: int, key_dim: int, wide: int
) -> int:
    """Biases and norms of queries and keys."""
    count = 0
    if family.qkv_bias or config.flag(BIAS, False):
        count += wide
    if config.flag(("attention_bias", "attention_out_bias"), False) and not family.qkv_bias:
        count += heads * key_dim // max(1, heads)
    if family.qk_norm == "head" or config.flag(("use_qk_norm", "qk_layernorm"), False):
        count += 2 * key_dim
    elif family.qk_norm == "heads":
        count += (heads + kv_heads) * key_dim
    return count


def _gate(
    config: Config, family: Family, place: Place, heads: int, value_dim: int
) -> tuple[Projection, ...]:
    """A gate on the output of attention."""
    gate = family.output_gate
    if config.flag("attn_output_gate", gate == "query") and gate in ("", "query"):
        gate = "query"
    for name in ("use_head_wise_attn_gate", "attention_output_gate", "mla_use_output_gate"):
        if config.flag(name, False):
            gate = "head" if "head" in name else "query"
    gating = config.word("gating")  # Laguna: true, or what has a gate of its own
    if gating:
        gate = "query" if "element" in gating else "head"
    if not gate or (gate == "query" and not config.flag("attn_output_gate", True)):
        return ()
    width = heads if gate == "head" else heads * value_dim
    return (Projection("gate", width, place.hidden, "n", place.bits),)


def _latent(config: Config, family: Family, place: Place, heads: int) -> Attention:
    """One latent vector is kept for all heads (multi-head latent attention)."""
    latent = config.count("kv_lora_rank", layer=place.layer)
    rope = config.count("qk_rope_head_dim", default=0)
    key_dim = config.count("qk_nope_head_dim", default=config.count(HEAD_DIM, 128))
    value_dim = config.count("v_head_dim", default=key_dim)
    queries = config.count("q_lora_rank", default=0)
    if family.latent_by_heads:
        return _by_heads_through_latent(config, place, heads, latent, queries)
    projections, top_k, index = indexer(config, place, queries or place.hidden)
    found = Attention(
        heads=heads,
        kv_heads=config.count(KV_HEADS, default=heads),
        key_dim=key_dim,
        value_dim=value_dim,
        latent=latent,
        rope_dim=rope,
        query_latent=queries,
        top_k=top_k,
        indexer_heads=index[0],
        indexer_dim=index[1],
        projections=projections + _gate(config, family, place, heads, value_dim),
        other_parameters=latent + queries,
        weight_bits=place.bits,
    )
    if top_k:
        _remark_on_fp8(config, found)
    return found


def _remark_on_fp8(config: Config, attention: Attention) -> None:
    """Kernels differ in what they keep, and GPUs in their kernels."""
    packed, plain = (
        f"{entry_bytes(each, FP8_BITS):g}" for each in (attention, replace(attention, top_k=0))
    )
    default = ", which is their default" if config.word("model_type") == "glm_moe_dsa" else ""
    config.remark(
        f"with an fp8 KV cache a token takes {packed} bytes a layer, as FlashMLA keeps it; on B200 "
        f"and B300 vLLM's FlashInfer takes {plain}{default}"
    )


def _by_heads_through_latent(
    config: Config, place: Place, heads: int, latent: int, queries: int
) -> Attention:
    """Keys and values of all heads are kept although they come from a latent (MiniCPM3)."""
    rope, nope = config.count("qk_rope_head_dim"), config.count("qk_nope_head_dim")
    values = config.count("v_head_dim", default=place.hidden // heads)
    hidden, bits, dim = place.hidden, place.bits, nope + rope
    return Attention(
        heads=heads,
        kv_heads=heads,
        key_dim=dim,
        value_dim=dim,
        usual_projections=False,
        projections=(
            Projection("qkv_a", queries + latent + rope, hidden, "", bits),
            Projection("q_b", heads * dim, queries, "n", bits),
            Projection("kv_b", heads * (nope + values), latent, "n", bits),
            Projection("o", hidden, heads * values, "k", bits),
        ),
        other_parameters=latent + queries,
        weight_bits=bits,
    )


def shares_kv(config: Config, layer: int, layers: int) -> bool:
    """Whether the layer reads keys and values that an earlier one keeps."""
    shared = config.count("num_kv_shared_layers", default=0)  # Gemma 3n and 4
    if shared:
        return layer >= layers - shared
    factor = config.count("cla_share_factor", default=0)  # Hunyuan
    if factor > 1 and config.flag("use_cla", False):
        return layer % factor > 0
    groups = config.items("kv_reuse_group")  # Hymba: lists of layers; the first of each keeps
    if groups is not None:
        return any(isinstance(group, list) and layer in group[1:] for group in groups)
    if config.count("mb_per_layer", default=0):  # Phi-4-flash: one layer keeps for the second half
        return layer > layers // 2 + 1
    return False
