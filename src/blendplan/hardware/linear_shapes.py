"""`LinearShape`: the matrix multiplications of a layer, fused as engines fuse them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from blendplan.hardware.layers import Attention, FeedForward, Layer, Projection, State


@dataclass(frozen=True)
class LinearShape:
    """One matrix multiplication [m, k] x [k, n] on one GPU, as often as the model has it.

    Attributes:
        name: ``qkv``, ``o``, ``gate_up``, ``down``, ... as engines fuse them.
        n, k: output and input features on one GPU.
        layers: layers that have it.
        experts: copies of it in one layer; 1 for what every token goes through.
        experts_per_token: how many of the copies one token goes through.
        weight_bits: bits per weight.
        held: False where the weights are those of an earlier layer, which holds them.
    """

    name: str
    n: int
    k: int
    layers: int = 1
    experts: int = 1
    experts_per_token: int = 1
    weight_bits: float = 16.0
    held: bool = True

    @property
    def parameters(self) -> int:
        """Weights held, over all layers and experts."""
        return self.n * self.k * self.layers * self.experts if self.held else 0

    @property
    def active_parameters(self) -> int:
        """Weights that one token is multiplied with."""
        return self.n * self.k * self.layers * self.experts_per_token

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights held."""
        return self.parameters * self.weight_bits / 8


def kv_heads_per_gpu(attention: Attention, tp: int) -> int:
    """KV heads on one GPU of a tensor-parallel group; at least one."""
    return max(1, attention.kv_heads // tp)


def layer_shapes(layer: Layer, hidden: int, tp: int) -> Iterator[LinearShape]:
    """The multiplications of one layer on one of ``tp`` GPUs."""
    for mixer in layer.mixers:
        held = not (isinstance(mixer, Attention) and mixer.shares_weights)
        for shape in _of_mixer(mixer, hidden, tp):
            yield shape if held else replace(shape, held=False)
    if layer.feed_forward is not None:
        held = not layer.feed_forward.shares_weights
        for shape in _of_feed_forward(layer.feed_forward, hidden, tp):
            yield shape if held else replace(shape, held=False)
    yield from _of_projections(layer.projections, tp)


def _of_mixer(mixer: Attention | State, hidden: int, tp: int) -> Iterator[LinearShape]:
    if isinstance(mixer, Attention) and mixer.usual_projections:
        yield from _of_latent(mixer, hidden, tp) if mixer.latent else _of_heads(mixer, hidden, tp)
    yield from _of_projections(mixer.projections, tp)


def _of_projections(projections: tuple[Projection, ...], tp: int) -> Iterator[LinearShape]:
    for extra in projections:
        n = extra.n // tp if extra.split == "n" else extra.n
        k = extra.k // tp if extra.split == "k" else extra.k
        yield LinearShape(extra.name, n, k, weight_bits=extra.weight_bits)


def _of_heads(attention: Attention, hidden: int, tp: int) -> Iterator[LinearShape]:
    heads, bits = attention.heads // tp, attention.weight_bits
    per_kv_head = attention.key_dim + (0 if attention.keys_are_values else attention.value_dim)
    kv = 0 if attention.shares_kv else kv_heads_per_gpu(attention, tp) * per_kv_head
    yield LinearShape("qkv", heads * attention.key_dim + kv, hidden, weight_bits=bits)
    yield LinearShape("o", hidden, heads * attention.value_dim, weight_bits=bits)


def _of_latent(attention: Attention, hidden: int, tp: int) -> Iterator[LinearShape]:
    heads, bits = attention.heads // tp, attention.weight_bits
    query_dim = attention.key_dim + attention.rope_dim
    latent = attention.latent + attention.rope_dim
    if attention.query_latent:
        width = attention.query_latent
        yield LinearShape("qkv_a", width + latent, hidden, weight_bits=bits)
        yield LinearShape("q_b", heads * query_dim, width, weight_bits=bits)
    else:
        yield LinearShape("q", heads * query_dim, hidden, weight_bits=bits)
        yield LinearShape("kv_a", latent, hidden, weight_bits=bits)
    width = attention.key_dim + attention.value_dim
    yield LinearShape("kv_b", heads * width, attention.latent, weight_bits=bits)
    yield LinearShape("o", hidden, heads * attention.value_dim, weight_bits=bits)


def _of_feed_forward(part: FeedForward, hidden: int, tp: int) -> Iterator[LinearShape]:
    into = 2 if part.gated else 1
    if part.width:
        width, bits = part.width // tp, part.weight_bits
        yield LinearShape("gate_up", into * width, hidden, weight_bits=bits)
        yield LinearShape("down", hidden, width, weight_bits=bits)
    if not part.experts:
        return
    yield LinearShape("router", part.experts, hidden)
    if part.shared_width:
        width, bits = part.shared_width // tp, part.shared_bits
        yield LinearShape("shared_gate_up", into * width, hidden, weight_bits=bits)
        yield LinearShape("shared_down", hidden, width, weight_bits=bits)
    if part.latent:
        yield LinearShape("latent_down", part.latent, hidden, weight_bits=part.latent_bits)
        yield LinearShape("latent_up", hidden, part.latent, weight_bits=part.latent_bits)
    inner, width = part.latent or hidden, part.expert_width // tp
    experts, used, bits = part.experts, part.experts_per_token, part.expert_bits
    yield LinearShape("expert_gate_up", into * width, inner, 1, experts, used, bits)
    yield LinearShape("expert_down", inner, width, 1, experts, used, bits)
