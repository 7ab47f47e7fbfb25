"""`Place`: where a layer is, and of what kind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a layer is, and of what kind.

    Attributes:
        layer: number of the layer, from 0.
        layers: of the decoder.
        kind: from `layer_kinds`.
        hidden: width of the residual stream.
        bits: bits per weight of its mixers.
        before: layers of the same kind before it.
    """

    layer: int
    layers: int
    kind: str
    hidden: int
    bits: float
    before: int = 0
