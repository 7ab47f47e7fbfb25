"""`ModelSpec`: the shape of a language model, and the counts that follow from it."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from blendplan.errors import BlendplanError
from blendplan.hardware.kv_entries import entry_bytes
from blendplan.hardware.layers import Attention, FeedForward, Layer, State, check_layer
from blendplan.hardware.linear_shapes import LinearShape, layer_shapes

KV_BITS = {"bf16": 16.0, "fp16": 16.0, "bfloat16": 16.0, "float16": 16.0, "fp8": 8.0}


@dataclass(frozen=True)
class ModelSpec:
    """Shape of a decoder-only language model.

    Attributes:
        name: catalogue name, or the folder's name.
        hidden: width of the residual stream.
        vocab: rows of the embedding.
        max_context_tokens: longest context the model takes.
        layers: of the decoder, in order; equal layers are the same object.
        tied_embeddings: the output head is the embedding matrix.
        other_parameters: of no layer: the last norm, and what stands before the layers.
        looked_up_parameters: rows of which a token looks up a few, such as embeddings by layer.
        encoder_parameters: of what reads images and sound, estimated; split as layers are.
        active_counts: what its publisher counts as active parameters: ``all``, ``head`` (all but
            rows of the embedding, which are looked up), or ``layers`` (nor the output head).
        head_bits: bits per weight of the output head; the embedding stays at 16.
        kv_bits: bits per element of the KV cache.
        source: where the numbers come from.
        remarks: what was assumed, and what is not modelled, a sentence each.
    """

    name: str
    hidden: int
    vocab: int
    max_context_tokens: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool = False
    other_parameters: int = 0
    looked_up_parameters: int = 0
    encoder_parameters: int = 0
    active_counts: str = "all"
    head_bits: float = 16.0
    kv_bits: float = 16.0
    source: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("hidden", "vocab", "max_context_tokens", "head_bits", "kv_bits"):
            if not 0 < getattr(self, name) < 1e9:
                raise BlendplanError(
                    f"model {self.name}: {name} is {getattr(self, name)}; it must be positive"
                )
        if not self.layers:
            raise BlendplanError(f"model {self.name} has no layers")
        for layer in self.layer_counts:
            check_layer(layer, f"model {self.name}")

    @cached_property
    def layer_counts(self) -> dict[Layer, int]:
        """How often each kind of layer is there, in order of first appearance."""
        return dict(Counter(self.layers))

    @property
    def layer_count(self) -> int:
        """Layers of the decoder."""
        return len(self.layers)

    @cached_property
    def attentions(self) -> dict[Attention, int]:
        """How many layers have each kind of attention."""
        found: Counter[Attention] = Counter()
        for layer, count in self.layer_counts.items():
            if layer.attention is not None:
                found[layer.attention] += count
        return dict(found)

    @cached_property
    def states(self) -> dict[State, int]:
        """How many layers have each kind of recurrent state."""
        found: Counter[State] = Counter()
        for layer, count in self.layer_counts.items():
            if layer.state is not None:
                found[layer.state] += count
        return dict(found)

    @cached_property
    def feed_forwards(self) -> dict[FeedForward, int]:
        """How many layers have each kind of feed-forward."""
        found: Counter[FeedForward] = Counter()
        for layer, count in self.layer_counts.items():
            if layer.feed_forward is not None:
                found[layer.feed_forward] += count
        return dict(found)

    @property
    def layers_by_kind(self) -> dict[str, int]:
        """How many layers there are of each kind, in order of first appearance."""
        found: Counter[str] = Counter()
        for layer, count in self.layer_counts.items():
            found[layer.kind] += count
        return dict(found)

    @cached_property
    def weight_bits(self) -> float:
        """Bits per weight of most of what a token is multiplied with, the head left out."""
        by_bits: Counter[float] = Counter()
        for shape in linear_shapes(self):
            by_bits[shape.weight_bits] += shape.active_parameters
        return max(by_bits, key=lambda bits: (by_bits[bits], bits))

    @property
    def head_parameters(self) -> int:
        """Weights of the output head."""
        return self.vocab * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, 0 where it is the output head."""
        return 0 if self.tied_embeddings else self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        linear = sum(shape.parameters for shape in linear_shapes(self))
        embedded = self.embedding_parameters + self.looked_up_parameters
        others = self._others + self.encoder_parameters
        return linear + self.head_parameters + embedded + others

    @property
    def active_parameters(self) -> int:
        """Weights used per token: those of the experts it visits.

        With or without embedding and output head, as ``active_counts`` says: publishers differ.
        """
        linear = sum(shape.active_parameters for shape in linear_shapes(self))
        head = 0 if self.active_counts == "layers" else self.head_parameters
        embedding = self.embedding_parameters if self.active_counts == "all" else 0
        return linear + head + embedding + self._others - self._unused_biases

    @property
    def _unused_biases(self) -> int:
        """Biases of experts that a token does not visit."""
        return sum(
            count * (part.experts - part.experts_per_token) * part.expert_biases
            for part, count in self.feed_forwards.items()
        )

    @cached_property
    def _others(self) -> int:
        """Weights that are no matrices: norms, biases, convolutions."""
        within = sum(
            count
            * (
                layer.other_parameters
                + sum(mixer.other_parameters for mixer in layer.mixers)
                + (_small(layer.feed_forward) if layer.feed_forward else 0)
            )
            for layer, count in self.layer_counts.items()
        )
        return self.other_parameters + within

    def attention_flop_per_pair(self, tp: int = 1) -> float:
        """FLOP of attention per (query, key) token pair on one GPU, over all layers."""
        flop = 0.0
        for attention, count in self.attentions.items():
            rope_dim = attention.rope_dim if attention.latent else 0
            per_head = 2 * (attention.key_dim + rope_dim + attention.value_dim)
            flop += per_head * attention.heads / tp * count
        return flop

    def kv_bytes_per_token(self, tp: int = 1, kv_dtype: str = "auto") -> float:
        """KV-cache bytes of one token on one GPU, over all layers that keep it.

        Latent attention keeps one vector for all heads, on every GPU; with more GPUs than KV
        heads, the heads are replicated. A token of compressed history counts by its share.
        """
        bits = kv_bits(self, kv_dtype)
        return sum(
            entry_bytes(attention, bits, tp) / max(1, attention.compression) * count
            for attention, count in self.attentions.items()
            if not attention.shares_kv
        )

    def weight_bytes(self, tp: int = 1) -> float:
        """Bytes of weights on one GPU."""
        linear = sum(shape.weight_bytes for shape in linear_shapes(self, tp))
        head = self.head_parameters * self.head_bits / 8 / tp
        split = self.embedding_parameters + self.looked_up_parameters + self.encoder_parameters
        return linear + head + 2 * split / tp + 2 * self._others


def _small(part: FeedForward) -> int:
    return part.other_parameters + part.experts * part.expert_biases


def kv_bits(model: ModelSpec, kv_dtype: str) -> float:
    """Bits per element of a KV cache of that dtype; ``auto`` is the model's own."""
    if kv_dtype == "auto":
        return model.kv_bits
    if kv_dtype not in KV_BITS:
        raise BlendplanError(
            f"unknown KV cache dtype {kv_dtype!r}: known are auto, {', '.join(KV_BITS)}"
        )
    return KV_BITS[kv_dtype]


def linear_shapes(model: ModelSpec, tp: int = 1) -> list[LinearShape]:
    """The linear layers on one GPU of a tensor-parallel group, without embedding and output head.

    Shapes are fused as vLLM and SGLang fuse them: query, key and value in one, gate and up in one.

    Raises:
        BlendplanError: tp does not divide the model.
    """
    _check_tp(model, tp)
    layers: Counter[LinearShape] = Counter()
    for layer, count in model.layer_counts.items():
        for shape in layer_shapes(layer, model.hidden, tp):
            layers[shape] += count
    return [replace(shape, layers=count) for shape, count in layers.items()]


def _check_tp(model: ModelSpec, tp: int) -> None:
    heads = sorted({mixer.heads for layer in model.layer_counts for mixer in layer.mixers})
    for number in heads:
        if tp < 1 or number % tp:
            fits = [
                str(degree)
                for degree in (1, 2, 4, 8, 16)
                if all(count % degree == 0 for count in heads)
            ]
            raise BlendplanError(
                f"tensor parallel degree {tp} does not divide the {number} heads of "
                f"{model.name}; use --tp {', '.join(fits)}"
            )
