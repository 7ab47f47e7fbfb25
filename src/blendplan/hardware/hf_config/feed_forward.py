"""The feed-forward of a layer: dense, a mixture of experts, or both."""

from collections.abc import Callable

from blendplan.hardware.hf_config.families import FAMILIES, FOUR_TIMES, Family
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.names import EXPERTS, LAYERS
from blendplan.hardware.hf_config.quantisation import Bits
from blendplan.hardware.layers import FeedForward

WIDTH = (
    "intermediate_size",
    "ffn_hidden_size",
    "block_ff_dim",
    "n_inner",
    "ffn_dim",
    "dff",
    "inner_hidden_size",
    "mlp_hidden_size",
    "ff_intermediate_size",
)
# Of dense layers, where the usual field is the width of experts.
DENSE_WIDTH = (
    "dense_intermediate_size",
    "intermediate_size_mlp",
    "prefix_dense_intermediate_size",
)
PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
    "num_selected_experts",
    "num_experts_per_topk",
    "moe_router_topk",
)
EXPERT_WIDTH = (
    "moe_intermediate_size",
    "expert_intermediate_size",
    "moe_expert_intermediate_size",
    "expert_ffn_hidden_size",
    "moe_ffn_hidden_size",
    "expert_hidden_size",
    "expert_dim",
)
SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
    "shared_expert_hidden_size",
)
SHARED = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
    "n_shared_expert",
    "moe_shared_experts",
)
LATENT = ("moe_latent_size", "routed_expert_hidden_size")
# Of types whose field is the width of gate and value together.
_TOGETHER = ("recurrent_gemma", "qwen", "molmo", "hf_olmo")
_TWO_MATRIX_ACTIVATIONS = ("relu2", "relu_squared", "xielu", "squared_relu")


def experts_of(config: Config, layer: int) -> int:
    """Routed experts of the layers that have any; 0 for none."""
    inner = config.part("ffn_config")  # DBRX
    if inner is not None:
        return inner.count("moe_num_experts", default=0)
    experts = config.count(EXPERTS, default=0, layer=layer)
    switches = ("enable_moe_block", "is_moe", "use_moe", "enable_moe")
    if config.says(switches) and not config.flag(switches, True):
        return 0
    return experts if experts > 1 else 0


def moe_layers(config: Config, family: Family, layers: int) -> list[bool]:
    """Which layers have experts.

    The first field that says so decides; without any, all have where there are experts.
    """
    some = any(experts_of(config, layer) for layer in range(layers))
    if not some:
        return [False] * layers
    if family.doubled:
        return [layer % 2 == 0 for layer in range(layers)]
    for source in _SOURCES:
        found = source(config, layers)
        if found is not None:
            return found
    if family.interleaved:
        step = config.count(family.interleaved, default=1)
        return [(layer + 1) % max(step, 1) == 0 for layer in range(layers)]
    return [True] * layers


def _listed(config: Config, layers: int) -> list[bool] | None:
    words = config.items(("mlp_layer_types", "ffn_layer_types"))
    if words is not None and len(words) >= layers:
        return [str(word).lower() not in ("dense", "mlp") for word in words[:layers]]
    flags = config.items("moe_layer_freq")
    if flags is not None and len(flags) >= layers:
        return [bool(flag) for flag in flags[:layers]]
    rows = config.value(("moe_layers", "moe_layers_enum", "moe_layer_indices"))
    if isinstance(rows, str):
        rows = [int(row) for row in rows.split(",") if row.strip().isdigit()]
    if isinstance(rows, list) and rows:
        return [layer in rows for layer in range(layers)]
    return None


def _by_period(config: Config, layers: int) -> list[bool] | None:
    period = config.count("expert_layer_period", default=0)  # Jamba
    if period:
        offset = config.count("expert_layer_offset", default=0)
        return [layer % period == offset for layer in range(layers)]
    interval = config.count("moe_layer_interval", default=0)  # ERNIE 4.5
    if interval:
        start = config.count("moe_layer_start_index", default=0, layer=0)
        last = config.value("moe_layer_end_index")
        last = last[0] if isinstance(last, list) and last else last
        end = last if isinstance(last, int) and last >= 0 else layers - 1
        return [start <= layer <= end and (layer + 1) % interval == 0 for layer in range(layers)]
    return None


def _after_dense(config: Config, layers: int) -> list[bool] | None:
    """Experts in every so many layers, after the first dense ones, but not in those listed."""
    dense = config.count(
        ("first_k_dense_replace", "num_dense_layers", "n_dense_layers", "moe_first_k_dense"),
        default=0,
    )
    behind = config.count("moe_layer_freq", default=1) or 1
    names = ("decoder_sparse_step", "moe_every_n_layers", "moe_layer_frequency")
    ahead = config.count(names, default=1) or 1
    without = config.items(("mlp_only_layers", "dense_layers")) or []
    known = ("first_k_dense_replace", "num_dense_layers", "n_dense_layers", "moe_first_k_dense")
    if not (dense or config.says(known) or without or behind > 1 or ahead > 1):
        return None
    return [
        layer >= dense and layer % behind == 0 and (layer + 1) % ahead == 0 and layer not in without
        for layer in range(layers)
    ]


_SOURCES: tuple[Callable[[Config, int], list[bool] | None], ...] = (
    _listed,
    _by_period,
    _after_dense,
)


def feed_forward_of(
    config: Config, family: Family, layer: int, hidden: int, *, moe: bool, bits: Bits
) -> FeedForward | None:
    """The feed-forward of a layer; None where it has none."""
    gated = _gated(config, family)
    if not moe:
        width = dense_width(config, layer, hidden)
        return FeedForward(width, gated, weight_bits=bits.dense(layer)) if width else None
    inner = config.part("ffn_config")
    if inner is not None:
        width = inner.count("ffn_hidden_size")
        used = inner.count("moe_top_k", default=1)
    else:
        width = config.count(EXPERT_WIDTH, default=0, layer=layer)
        width = width or config.count(WIDTH, layer=layer)
        used = _per_token(config, layer)
    experts = experts_of(config, layer)
    beside = 0
    if config.flag(("enable_moe_block", "residual_moe"), False) or family.doubled:
        beside = dense_width(config, layer, hidden)
    elif config.flag("parallel_attn_mlp_res", False):  # Arctic
        beside = hidden
    shared = _shared(config, family, layer, width)
    return FeedForward(
        width=beside,
        gated=gated,
        experts=experts,
        experts_per_token=used,
        expert_width=width,
        shared_width=shared,
        latent=config.count(LATENT, default=0),
        expert_biases=2 * width + hidden if family.expert_bias else 0,
        other_parameters=experts,
        weight_bits=bits.dense(layer),
        expert_bits=bits.experts(layer),
        shared_bits=bits.shared(layer),
        latent_bits=bits.shared(layer),
    )


def _per_token(config: Config, layer: int) -> int:
    if config.value(PER_TOKEN) is None:
        config.remark(
            "no field says how many experts a token visits: 2 are assumed; active parameters and "
            "the price of a token follow"
        )
    used = config.count(PER_TOKEN, default=2, layer=layer)
    empty = config.count("zero_expert_num", default=0)  # LongCat: experts that do nothing
    if not empty:
        return used
    experts = experts_of(config, layer)
    config.remark(
        f"{empty} of {experts + empty} experts do nothing: a token is taken to visit its share"
    )
    return max(1, round(used * experts / (experts + empty)))


def _gated(config: Config, family: Family) -> bool:
    activation = config.word(("mlp_hidden_act", "hidden_act", "activation_function"))
    if config.word("model_type") not in FAMILIES and activation in _TWO_MATRIX_ACTIVATIONS:
        return False
    return family.gated


def dense_width(config: Config, layer: int, hidden: int) -> int:
    """Width of the dense MLP of a layer."""
    stated = config.count(DENSE_WIDTH, default=0, layer=layer)
    if stated:
        return stated
    width = config.count(WIDTH, default=0, layer=layer)
    if not width and config.count("shared_intermediate_size", default=0):
        return config.count("shared_intermediate_size")
    if config.word("model_type") in _TOGETHER:
        return width // 2
    width = width or _usual_width(config, hidden)
    if config.word("model_type") == "granitemoehybrid" and config.says("shared_intermediate_size"):
        return config.count("shared_intermediate_size")
    if config.says(("conv_L_cache",)) and config.flag("block_auto_adjust_ff_dim", False):
        return _adjusted(config, width)
    if config.flag("use_double_wide_mlp", False):  # Gemma 4: layers that reuse KV
        shared = config.count("num_kv_shared_layers", default=0)
        layers = config.count(LAYERS)
        return 2 * width if shared and layer >= layers - shared else width
    return width


def _usual_width(config: Config, hidden: int) -> int:
    """Width where no field says, as the classes that have no such field take it."""
    ratio = config.times("expansion_ratio", 0)
    if not ratio and config.word("model_type") not in FOUR_TIMES:
        config.remark(f"no field says how wide the MLP is: 4 x hidden_size, {4 * hidden}, is taken")
    return int(hidden * (ratio or 4))


def _adjusted(config: Config, width: int) -> int:
    """LFM2 takes two thirds of the stated width, up to a multiple."""
    scale = config.times("block_ffn_dim_multiplier", 1.0)
    multiple = max(1, config.count("block_multiple_of", default=256))
    return -(-int(scale * int(2 * width / 3)) // multiple) * multiple


def _shared(config: Config, family: Family, layer: int, width: int) -> int:
    """Summed width of the experts that every token visits."""
    if family.shared_width:
        return config.count(family.shared_width, layer=layer)
    count = config.count(SHARED, default=0, layer=layer)
    stated = config.count(SHARED_WIDTH, default=0, layer=layer)
    if config.word("model_type") in ("hunyuan", "hunyuan_v1_moe") and config.says(SHARED):
        return count * config.count(WIDTH, layer=layer)
    if stated and config.says("moe_shared_expert_intermediate_size"):  # the width of one
        return stated * max(count, 1)
    return stated or count * width


MOE_FIELDS = (
    "mlp_layer_types",
    "ffn_layer_types",
    "moe_layer_freq",
    "moe_layers",
    "moe_layers_enum",
    "moe_layer_indices",
    "expert_layer_period",
    "expert_layer_offset",
    "moe_layer_interval",
    "moe_layer_start_index",
    "moe_layer_end_index",
    "first_k_dense_replace",
    "num_dense_layers",
    "decoder_sparse_step",
    "mlp_only_layers",
    "interleave_moe_layer_step",
    "moe_intermediate_size",
    "num_experts_per_tok",
    "n_shared_experts",
    "enable_moe_block",
)
"""Fields that say where experts are, all of which are understood; one of them decides."""
