"""The layers of a decoder, one after the other, from the fields of its config."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from blendplan.hardware.hf_config import extras
from blendplan.hardware.hf_config.attention import attention_of, shares_kv
from blendplan.hardware.hf_config.block_configs import with_blocks
from blendplan.hardware.hf_config.families import Family
from blendplan.hardware.hf_config.feed_forward import feed_forward_of, moe_layers
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.layer_kinds import layer_kinds
from blendplan.hardware.hf_config.place import Place
from blendplan.hardware.hf_config.quantisation import Bits
from blendplan.hardware.hf_config.shared_blocks import shared_block
from blendplan.hardware.hf_config.sparse import chooses
from blendplan.hardware.hf_config.states import state_of
from blendplan.hardware.layers import Attention, Layer, State


def layers_of(
    config: Config, family: Family, hidden: int, layers: int, bits: Bits
) -> tuple[Layer, ...]:
    """The layers of the decoder; equal ones are the same object.

    Layers that nothing tells apart are built once.

    Args:
        config, family: of the model.
        hidden: width of the residual stream.
        layers: how many.
        bits: of the weights.

    Raises:
        BlendplanError: fields missing, of the wrong kind or not known.
    """
    blocks = with_blocks(config, layers)
    if blocks is not None:
        config, kinds = blocks
    else:
        kinds = layer_kinds(config, family, layers)
    moe = moe_layers(config, family, layers)
    known: dict[str, Layer] = {}
    equal: dict[Layer, Layer] = {}
    found = []
    seen_kinds: Counter[str] = Counter()
    for layer, kind in enumerate(kinds):
        place = Place(layer, layers, kind, hidden, bits.mixer(layer), seen_kinds[kind])
        seen_kinds[kind] += 1
        told_apart = _told_apart(config, family, place, moe[layer], bits)
        if told_apart not in known:
            made = _layer(config.at_layer(layer), family, place, moe[layer], bits)
            known[told_apart] = equal.setdefault(made, made)
        found.append(known[told_apart])
    return tuple(found)


def _told_apart(config: Config, family: Family, place: Place, moe: bool, bits: Bits) -> str:
    """All that a layer depends on besides the fields that all layers share."""
    layer = place.layer
    own = [values[layer] for values in _lists(config.values) if layer < len(values)]
    quantised = (bits.dense(layer), bits.experts(layer), bits.shared(layer))
    shared = shares_kv(config, layer, place.layers), chooses(config, layer)
    before = place.before if family.shared_blocks else 0
    local = config.at_layer(layer).values if config.says("per_layer_config") else None
    return repr((place.kind, place.bits, moe, quantised, shared, before, own, local))


def _lists(values: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, value in values.items():
        if isinstance(value, list):
            yield value
        elif isinstance(value, Mapping) and not name.startswith("quantization"):
            yield from _lists(value)


def _layer(config: Config, family: Family, place: Place, moe: bool, bits: Bits) -> Layer:
    kind = place.kind
    mixers = _mixers(config, family, place)
    part = None
    if kind in ("mlp", "moe") or not family.alone:
        has_experts = kind == "moe" if family.alone else moe
        part = feed_forward_of(
            config, family, place.layer, place.hidden, moe=has_experts, bits=bits
        )
    projections, small = extras.of_layer(config, place.layer, place.hidden)
    if kind == "cross":
        projections += extras.to_image(config, place)
    if family.shared_blocks and kind == "hybrid":
        attention, part, own = shared_block(config, place)
        mixers, projections = (attention, mixers[-1]), projections + own
    elif kind in family.no_mlp:
        part = None
    return Layer(mixers, part, projections, family.norms * place.hidden + small)


def _mixers(config: Config, family: Family, place: Place) -> tuple[Attention | State, ...]:
    mixers: list[Attention | State] = []
    if place.kind in ("full", "sliding", "chunked", "hybrid", "hybrid sliding"):
        mixers.append(attention_of(config, family, place))
    if place.kind in ("linear", "hybrid", "hybrid sliding"):
        mixers.append(state_of(config, family, place))
    return tuple(mixers)
