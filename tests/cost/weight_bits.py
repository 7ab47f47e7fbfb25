"""A dense model of the catalogue, with weights of other bits."""

from dataclasses import replace

from blendplan.hardware.layers import Layer
from blendplan.hardware.model import ModelSpec


def with_weight_bits(model: ModelSpec, bits: float) -> ModelSpec:
    """A model of one kind of layer with so many bits per weight of its matrices."""
    (layer,) = set(model.layers)
    attention, part = layer.attention, layer.feed_forward
    assert attention is not None
    assert part is not None
    layer = Layer((replace(attention, weight_bits=bits),), replace(part, weight_bits=bits))
    return replace(model, layers=(layer,) * model.layer_count)
