"""Attention that reads a part of the history: chosen tokens or blocks, or several tokens as one."""

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.place import Place
from blendplan.hardware.layers import Attention, Projection

# DeepSeek V4: spans that compressors take, and the part of a key with the rotary embedding.
_RATIOS = (4, 128)
_ROPE_DIM = 64


def chooses(config: Config, layer: int) -> bool:
    """Whether a layer has an indexer of its own, or takes the choice of an earlier one."""
    types = config.value(("indexer_types", "index_topk_pattern"))
    if isinstance(types, list | str) and layer < len(types):
        return types[layer] not in ("shared", "S")
    frequency = max(config.count("index_topk_freq", default=1), 1)
    offset = config.count("index_skip_topk_offset", default=2)
    return max(layer - offset + 1, 0) % frequency == 0


Index = tuple[int, int, int]  # heads, width of a key, tokens chosen together


def indexer(
    config: Config, place: Place, queries: int
) -> tuple[tuple[Projection, ...], int, Index]:
    """What chooses the tokens that latent attention reads (DeepSeek V3.2, GLM-5)."""
    top_k = config.count("index_topk", default=0)
    if not top_k or not config.flag("use_dsa", True):
        return (), 0, (0, 0, 1)
    if not chooses(config, place.layer):
        return (), top_k, (0, 0, 1)
    heads = config.count("index_n_heads", default=0)
    dim = config.count("index_head_dim", default=0)
    return (
        (
            Projection("indexer_q", heads * dim, queries, "", place.bits),
            Projection("indexer_k", dim, place.hidden, "", place.bits),
            Projection("indexer_weights", heads, place.hidden, ""),
        ),
        top_k,
        (heads, dim, 1),
    )


def block_sparse(config: Config, place: Place) -> tuple[tuple[Projection, ...], int, Index]:
    """Blocks of the history that an index chooses (MiniMax-M3)."""
    types = config.items("layer_types")
    if types is not None and types[place.layer] == "minimax_m3_sparse":
        return _blocks(config, place, config, "index")
    inner = config.part("sparse_attention_config")
    if inner is None or not inner.flag("use_sparse_attention", True):
        return (), 0, (0, 0, 1)
    if not inner.count("sparse_attention_freq", default=1, layer=place.layer):
        return (), 0, (0, 0, 1)
    inner.read.update(("sparse_disable_index_value", "sparse_score_type"))
    return _blocks(config, place, inner, "sparse")


def _blocks(
    config: Config, place: Place, inner: Config, prefix: str
) -> tuple[tuple[Projection, ...], int, Index]:
    names = ("num_index_heads", "index_dim", "topk_blocks", "local_block")
    if prefix == "index":
        names = ("n_heads", "head_dim", "topk_blocks", "local_blocks")
    heads, dim, blocks, local = (inner.count(f"{prefix}_{name}", default=0) for name in names)
    local += inner.count("sparse_init_block", default=0)
    block = inner.count(f"{prefix}_block_size", default=128)
    projections = (
        Projection("indexer_q", heads * dim, place.hidden, "", place.bits),
        Projection("indexer_k", dim, place.hidden, "", place.bits),
    )
    return projections, block * (blocks + local), (heads, dim, block)


def compressed(config: Config, place: Place, heads: int) -> Attention:
    """A window, and before it one vector for several tokens (DeepSeek V4)."""
    dim = config.count("head_dim")
    queries = config.count("q_lora_rank")
    rank, groups = config.count("o_lora_rank"), config.count("o_groups")
    ratio = _ratio(config, place)
    window = config.count("sliding_window")
    if not window:
        raise BlendplanError(
            f"{config.where}: sliding_window is 0 beside compressed history; state the window"
        )
    _remark_on_pages(config, ratio)
    bits = place.bits
    projections = [
        Projection("qkv_a", queries + dim, place.hidden, "", bits),
        Projection("q_b", heads * dim, queries, "n", bits),
        Projection("o_a", groups * rank, heads * dim // max(1, groups), "n", bits),
        Projection("o_b", place.hidden, groups * rank, "k", bits),
    ]
    index: Index = (0, 0, 1)
    top_k = 0
    if ratio:
        overlap = 2 if ratio <= 4 else 1  # keys and values of two neighbouring spans are mixed
        projections.append(Projection("compressor", 2 * overlap * dim, place.hidden, ""))
        if ratio <= 4:
            top_k = config.count("index_topk", default=0)
            index = config.count("index_n_heads", 0), config.count("index_head_dim", 0), 1
            width = index[0] * index[1]
            projections += [
                Projection("indexer_q", width, queries, "", bits),
                Projection("indexer_weights", index[0], place.hidden, ""),
                Projection("indexer_compressor", 4 * index[1], place.hidden, ""),
            ]
    config.read.update(("compress_rope_theta", "num_key_value_heads"))
    return Attention(
        heads=heads,
        kv_heads=1,
        key_dim=dim,
        value_dim=dim,
        window=window,
        rope_dim=min(config.count("qk_rope_head_dim", default=_ROPE_DIM), dim),
        top_k=top_k,
        indexer_heads=index[0],
        indexer_dim=index[1],
        compression=ratio,
        kept_once=True,
        packed=True,
        projections=tuple(projections),
        usual_projections=False,
        other_parameters=queries + dim + heads,
        weight_bits=bits,
    )


def _remark_on_pages(config: Config, ratio: int) -> None:
    """What is taken for granted of the KV cache."""
    config.remark(
        "the KV cache is that of vLLM's default kernels on NVIDIA GPUs: fp8 with scales, in blocks "
        "of 256 tokens whatever block size is asked for"
    )
    if config.word("model_type") not in ("deepseek_v4", ""):
        config.remark(
            "KV memory is an estimate: it is laid out as that of DeepSeek V4, where every layer "
            "keeps a history of its own"
        )
    elif ratio not in (0, 1, *_RATIOS):
        config.remark(
            f"KV memory is an estimate: vLLM 0.32 has no compressor for {ratio} tokens, only for "
            f"{' and '.join(map(str, _RATIOS))}"
        )


def _ratio(config: Config, place: Place) -> int:
    """Tokens of the history that become one."""
    rates, types = config.part("compress_rates"), config.items("layer_types")
    if rates is not None and types is not None:
        return rates.count(str(types[place.layer]), default=0)
    return config.count("compress_ratios", default=0, layer=place.layer)
