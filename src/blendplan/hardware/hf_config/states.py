"""The recurrence of a layer: a state of constant size, and the matrices around it.

Shapes of states are those of vLLM's ``MambaStateShapeCalculator``.
"""

from collections.abc import Callable
from math import ceil

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.families import Family
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.names import HEAD_DIM, HEADS
from blendplan.hardware.hf_config.place import Place
from blendplan.hardware.layers import Projection, State

_EXPAND = ("mamba_expand", "expand", "ssm_expand")
_CONV = ("mamba_d_conv", "conv_kernel", "d_conv", "ssm_conv_kernel", "mamba_conv_kernel")
_STATE = ("mamba_d_state", "ssm_state_size", "state_size", "d_state", "mamba_state_size")
_SSM_HEADS = ("mamba_n_heads", "mamba_num_heads", "n_mamba_heads")
_SSM_HEAD_DIM = ("mamba_d_head", "mamba_head_dim", "mamba_headdim")
_GROUPS = ("mamba_n_groups", "mamba_ngroups", "n_groups")
_BITS = {"float32": 32.0, "fp32": 32.0, "float16": 16.0, "bfloat16": 16.0}


def state_of(config: Config, family: Family, place: Place) -> State:
    """The recurrent state of a layer that has one.

    Raises:
        BlendplanError: no field says which recurrence it is.
    """
    kind = _kind(config, family)
    return _KINDS[kind](config, family, place)


def _kind(config: Config, family: Family) -> str:
    if config.part("linear_attn_config") is not None or config.says("kda_safe_gate"):
        return "kda"
    if config.count(("linear_num_value_heads",), default=0):
        return "gated_delta"
    if config.says(("conv_L_cache", "conv_l_cache")):
        return "short_conv"
    if config.says(("layer_group_size",)) and not config.says("short_conv_kernel_size"):
        return "lightning"
    if family.linear:
        return family.linear
    if config.says(_SSM_HEADS) or config.says(_SSM_HEAD_DIM):
        return "mamba2"
    if config.says(_STATE):
        return "mamba1"
    if config.says(("lru_width",)):
        return "rglru"
    raise BlendplanError(
        f"{config.where}: has recurrent layers of model type {config.word('model_type')!r}, whose "
        "state is not known"
    )


def _state_bits(config: Config, family: Family) -> float:
    word = config.word(("mamba_ssm_cache_dtype", "mamba_ssm_dtype", "ssm_dtype"))
    return _BITS.get(word, family.state_bits)


def _inner(config: Config, hidden: int) -> int:
    """Width of the recurrence."""
    stated = config.count(("mamba_d_ssm", "mamba_intermediate_size"), default=0)
    factor = config.times(_EXPAND, 2)
    return stated or int(factor * hidden)


def _unless_auto(config: Config, names: tuple[str, ...]) -> int:
    """A size; 0 where none is stated, or ``auto``."""
    return 0 if isinstance(config.value(names), str) else config.count(names, default=0)


def _mamba1(config: Config, family: Family, place: Place) -> State:
    hidden = place.hidden
    inner, state = _inner(config, hidden), config.count(_STATE, default=16)
    kernel = config.count(_CONV, default=4)
    stated = _unless_auto(config, ("mamba_dt_rank", "time_step_rank", "dt_rank"))
    rank = stated or ceil(hidden / 16)
    return State(
        "mamba1",
        conv_elements=(kernel - 1) * inner,
        state_elements=inner * state,
        heads=inner,
        state_bits=_state_bits(config, family),
        projections=_selected(place, inner, inner, rank, state),
        other_parameters=inner * (kernel + 1 + state + 2),
    )


def _selected(
    place: Place, inner: int, heads: int, rank: int, state: int
) -> tuple[Projection, ...]:
    """Matrices where rates, inputs and outputs come from the recurrence's own width."""
    return (
        Projection("in", 2 * inner, place.hidden, "n", place.bits),
        Projection("x", rank + 2 * state, inner, "k", place.bits),
        Projection("dt", heads, rank, "n", place.bits),
        Projection("out", place.hidden, inner, "k", place.bits),
    )


def _mamba2(config: Config, family: Family, place: Place) -> State:
    hidden, bits = place.hidden, place.bits
    heads = config.count(_SSM_HEADS, default=0) or config.count(("num_heads",), default=0)
    dim = _unless_auto(config, _SSM_HEAD_DIM)
    if config.word("model_type") == "mamba2":
        dim = _unless_auto(config, ("head_dim",))
    inner = _inner(config, hidden)
    if config.word("model_type") == "nemotron_h" and heads and dim:
        inner = heads * dim
    heads = heads or (inner // dim if dim else max(1, inner // 64))
    dim = dim or inner // heads
    inner = heads * dim
    groups, state = config.count(_GROUPS, default=1), config.count(_STATE, default=128)
    kernel = config.count(_CONV, default=4)
    mixed = inner + 2 * groups * state
    return State(
        "mamba2",
        conv_elements=(kernel - 1) * mixed,
        state_elements=heads * dim * state,
        heads=heads,
        state_bits=_state_bits(config, family),
        projections=(
            Projection("in", inner + mixed + heads, hidden, "n", bits),
            Projection("out", hidden, inner, "k", bits),
        ),
        other_parameters=mixed * (kernel + 1) + 3 * heads + inner,
    )


def _plamo2(config: Config, family: Family, place: Place) -> State:
    """Mamba-2 whose rates, inputs and outputs come from the recurrence's own width (PLaMo 2)."""
    heads, dim = config.count(_SSM_HEADS), config.count(HEAD_DIM, default=128)
    state, kernel = config.count(_STATE, default=64), config.count(_CONV, default=4)
    inner, rank = heads * dim, max(64, place.hidden // 16)
    return State(
        "mamba2",
        conv_elements=(kernel - 1) * inner,
        state_elements=inner * state,
        heads=heads,
        state_bits=_state_bits(config, family),
        projections=_selected(place, inner, heads, rank, state),
        other_parameters=kernel * inner + 3 * heads + rank + 2 * state,
    )


def _gated_delta(config: Config, family: Family, place: Place) -> State:
    hidden, bits = place.hidden, place.bits
    heads = config.count("linear_num_value_heads", default=config.count(HEADS, default=1))
    key_heads = config.count("linear_num_key_heads", default=heads)
    key_dim = config.count("linear_key_head_dim", default=128)
    value_dim = config.count("linear_value_head_dim", default=128)
    kernel = config.count(("linear_conv_kernel_dim",), default=4)
    keys, values = key_heads * key_dim, heads * value_dim
    return State(
        "gated_delta",
        conv_elements=(kernel - 1) * (2 * keys + values),
        state_elements=heads * value_dim * key_dim,
        heads=key_heads,
        state_bits=_state_bits(config, family),
        projections=(
            Projection("in", 2 * keys + 2 * values, hidden, "n", bits),
            Projection("in_rates", 2 * heads, hidden, "n", bits),
            Projection("out", hidden, values, "k", bits),
        ),
        other_parameters=kernel * (2 * keys + values) + 2 * heads + value_dim,
    )


def _kda(config: Config, family: Family, place: Place) -> State:
    """Kimi delta attention."""
    hidden, bits = place.hidden, place.bits
    inner = config.part("linear_attn_config")
    if inner is not None:
        heads, dim = inner.count("num_heads"), inner.count("head_dim")
        kernel = inner.count("short_conv_kernel_size", default=4)
        full_rank = inner.flag("use_full_rank_gate", False)
        inner.read.add("gate_lower_bound")
    else:
        heads = config.count(("linear_num_heads",), default=config.count(HEADS))
        dim = config.count(("linear_head_dim", *HEAD_DIM), default=128)
        kernel = config.count(("linear_conv_kernel_dim", "short_conv_kernel_size"), default=4)
        full_rank = config.word("model_type") == "bailing_hybrid"
    width = heads * dim
    gates = [Projection("gate", width, hidden, "n", bits)]
    if not full_rank:
        gates = [
            Projection("gate_a", dim, hidden, "", bits),
            Projection("gate_b", width, dim, "n", bits),
        ]
    return State(
        "kda",
        conv_elements=(kernel - 1) * 3 * width,
        state_elements=heads * dim * dim,
        heads=heads,
        state_bits=_BITS.get(config.word("mamba_ssm_cache_dtype"), 32.0),
        projections=(
            Projection("in", 3 * width + heads, hidden, "n", bits),
            Projection("decay_a", dim, hidden, "", bits),
            Projection("decay_b", width, dim, "n", bits),
            *gates,
            Projection("out", hidden, width, "k", bits),
        ),
        other_parameters=3 * kernel * width + width + heads + dim,
    )


def _lightning(config: Config, family: Family, place: Place) -> State:
    """Linear attention with a fixed decay by head (MiniMax-Text-01 and M1, Ring linear)."""
    hidden, bits = place.hidden, place.bits
    heads = config.count(HEADS)
    dim = config.count(HEAD_DIM, default=max(1, hidden // max(1, heads)))
    width = heads * dim
    return State(
        "lightning",
        conv_elements=0,
        state_elements=heads * dim * dim,
        heads=heads,
        state_bits=family.state_bits,
        projections=(
            Projection("qkv", 3 * width, hidden, "n", bits),
            Projection("gate", width, hidden, "n", bits),
            Projection("out", hidden, width, "k", bits),
        ),
        other_parameters=width,
    )


def _short_conv(config: Config, family: Family, place: Place) -> State:
    """A gated convolution over the last few tokens (LFM2)."""
    hidden, bits = place.hidden, place.bits
    kernel = config.count(("conv_L_cache", "conv_l_cache"), default=3)
    width = config.count(("conv_dim",), default=hidden)
    return State(
        "short_conv",
        conv_elements=(kernel - 1) * width,
        state_elements=0,
        heads=width,
        projections=(
            Projection("in", 3 * width, hidden, "n", bits),
            Projection("out", hidden, width, "k", bits),
        ),
        other_parameters=kernel * width,
    )


def _rglru(config: Config, family: Family, place: Place) -> State:
    """A gated linear recurrent unit (RecurrentGemma)."""
    hidden, bits = place.hidden, place.bits
    width = config.count("lru_width", default=hidden)
    kernel = config.count("conv1d_width", default=4)
    heads = config.count(HEADS, default=1)
    return State(
        "rglru",
        conv_elements=(kernel - 1) * width,
        state_elements=width,
        heads=heads,
        state_bits=32.0,
        projections=(
            Projection("in", 2 * width, hidden, "n", bits),
            Projection("gates", 2 * width // max(1, heads), width, "k", bits),
            Projection("out", hidden, width, "k", bits),
        ),
        other_parameters=width * (kernel + 6),
    )


_KINDS: dict[str, Callable[[Config, Family, Place], State]] = {
    "mamba1": _mamba1,
    "mamba2": _mamba2,
    "plamo2": _plamo2,
    "gated_delta": _gated_delta,
    "kda": _kda,
    "lightning": _lightning,
    "short_conv": _short_conv,
    "rglru": _rglru,
}

STATE_FIELDS = (
    "conv_L_cache",
    "conv_dim",
    *_EXPAND,
    *_CONV,
    *_STATE,
    *_SSM_HEADS,
    *_SSM_HEAD_DIM,
    *_GROUPS,
    "mamba_ssm_cache_dtype",
    "mamba_ssm_dtype",
    "linear_num_value_heads",
    "linear_num_key_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
)
"""Fields of recurrences, which mean nothing where no layer has one."""
