"""What the layers of a decoder are made of: mixers of tokens, and feed-forward.

All sizes are those of the whole model; nothing here knows how many GPUs share it. A *mixer* lets
tokens see earlier ones: softmax attention, which keeps keys and values of them, or a recurrence,
whose state has the same size after any number of tokens. Parameters that are no matrices (norms,
biases, convolutions, decay rates) are counted in ``other_parameters``.
"""

from dataclasses import dataclass

from blendplan.errors import BlendplanError


@dataclass(frozen=True)
class Projection:
    """A matrix [n, k] that a mixer or a layer has beside the usual ones.

    Attributes:
        name: as engines call it.
        n, k: output and input features.
        split: which of them tensor parallelism divides, ``n`` or ``k``; empty where every GPU has
            all of it.
        weight_bits: bits per weight, scales included.
    """

    name: str
    n: int
    k: int
    split: str = "n"
    weight_bits: float = 16.0


@dataclass(frozen=True)
class Attention:
    """Softmax attention over the keys and values of earlier tokens.

    Attributes:
        heads, kv_heads: query heads, and heads of keys and values.
        key_dim, value_dim: of one head. With a latent, ``key_dim`` is the part of a head without
            rotary embedding.
        window: tokens back that a query sees, itself counted; 0 for all.
        chunk: tokens of a chunk, out of which no query sees; 0 for none.
        latent: width of the one vector that is kept for all heads (multi-head latent attention);
            0 where keys and values of the heads are kept.
        rope_dim: with a latent, what is kept beside it for the rotary embedding; where pages are
            packed, the part of a key that has it.
        query_latent: with a latent, the width that queries pass through; 0 for none.
        top_k: tokens that a query reads at most, chosen from all; 0 for all.
        indexer_heads, indexer_dim: of the heads that choose them; one key of ``indexer_dim`` is
            kept per token. 0 where the choice is made without keys of its own, or by an earlier
            layer.
        selection_block: tokens that are chosen together; 1 where each is chosen alone.
        compression: tokens before the window that are kept as one vector; 0 where history is kept
            token by token.
        shares_kv: reads the keys and values that an earlier layer keeps, and keeps none.
        keys_are_values: one vector serves as key and as value.
        kept_once: what is kept holds keys and values in the same elements.
        packed: the window, what stands for the history before it and what that is made of have
            pages of different sizes, which share blocks (DeepSeek V4).
        projections: matrices beside query, key, value and output.
        usual_projections: whether query, key, value and output are matrices of the usual shapes;
            otherwise all of them are among ``projections``.
        shares_weights: runs with matrices that an earlier layer holds.
        other_parameters: norms, biases and sinks.
        weight_bits: bits per weight of query, key, value and output, scales included.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int = 0
    chunk: int = 0
    latent: int = 0
    rope_dim: int = 0
    query_latent: int = 0
    top_k: int = 0
    indexer_heads: int = 0
    indexer_dim: int = 0
    selection_block: int = 1
    compression: int = 0
    shares_kv: bool = False
    keys_are_values: bool = False
    kept_once: bool = False
    packed: bool = False
    projections: tuple[Projection, ...] = ()
    usual_projections: bool = True
    shares_weights: bool = False
    other_parameters: int = 0
    weight_bits: float = 16.0

    @property
    def reach(self) -> int:
        """Tokens back that a query reads at most; 0 for all."""
        return min((reach for reach in (self.window, self.chunk, self.top_k) if reach), default=0)

    @property
    def kind(self) -> str:
        """In a word: ``full``, ``sliding``, ``chunked``, ``latent``, ..."""
        if self.shares_kv:
            return "shared KV"
        if self.compression:
            return "compressed"
        if self.latent:
            return "sparse latent" if self.top_k else "latent"
        if self.top_k:
            return "block sparse" if self.selection_block > 1 else "sparse"
        if self.chunk:
            return "chunked"
        return "sliding" if self.window else "full"


@dataclass(frozen=True)
class State:
    """A mixer that keeps a state of constant size per request.

    Attributes:
        kind: ``mamba1``, ``mamba2``, ``gated_delta``, ``kda``, ``lightning``, ``short_conv``, ...
        conv_elements: kept of the last tokens for a convolution.
        state_elements: of the recurrent state.
        heads: that tensor parallelism can divide.
        conv_bits, state_bits: bits per element of them.
        projections: its matrices.
        other_parameters: convolutions, norms, biases, decay rates.
    """

    kind: str
    conv_elements: int
    state_elements: int
    heads: int
    conv_bits: float = 16.0
    state_bits: float = 16.0
    projections: tuple[Projection, ...] = ()
    other_parameters: int = 0


@dataclass(frozen=True)
class FeedForward:
    """A dense MLP, a mixture of experts, or both side by side.

    Attributes:
        width: of the dense MLP; 0 for none.
        gated: gate, up and down matrices; False for two matrices.
        experts, experts_per_token, expert_width: the mixture; 0 for none.
        shared_width: summed width of the experts that every token visits.
        latent: width in which the experts work; 0 for the hidden size.
        shares_weights: runs with matrices that an earlier layer holds.
        expert_biases: elements of the biases of one routed expert.
        other_parameters: norms, and other biases.
        weight_bits: bits per weight of the dense MLP, scales included.
        expert_bits, shared_bits, latent_bits: the same of routed and shared experts, and of the
            matrices into and out of the latent.
    """

    width: int = 0
    gated: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0
    latent: int = 0
    shares_weights: bool = False
    expert_biases: int = 0
    other_parameters: int = 0
    weight_bits: float = 16.0
    expert_bits: float = 16.0
    shared_bits: float = 16.0
    latent_bits: float = 16.0


@dataclass(frozen=True)
class Layer:
    """One layer of the decoder.

    Attributes:
        mixers: attention, a state, both side by side, or none.
        feed_forward: None for a layer without.
        projections: matrices that are part of neither.
        other_parameters: norms around them.
    """

    mixers: tuple[Attention | State, ...]
    feed_forward: FeedForward | None
    projections: tuple[Projection, ...] = ()
    other_parameters: int = 0

    @property
    def kind(self) -> str:
        """Kinds of its mixers, as in ``full + mamba2``; ``feed-forward`` where it has none."""
        return " + ".join(mixer.kind for mixer in self.mixers) or "feed-forward"

    @property
    def attention(self) -> Attention | None:
        """Its attention, if it has one."""
        return next((mixer for mixer in self.mixers if isinstance(mixer, Attention)), None)

    @property
    def state(self) -> State | None:
        """Its recurrence, if it has one."""
        return next((mixer for mixer in self.mixers if isinstance(mixer, State)), None)


def check_layer(layer: Layer, where: str) -> None:
    """Refuse sizes that no layer has.

    Raises:
        BlendplanError: with the size and its value.
    """
    attention, feed_forward = layer.attention, layer.feed_forward
    if attention is not None:
        for name in ("heads", "kv_heads", "key_dim", "value_dim", "weight_bits"):
            if not 0 < getattr(attention, name) < 1e9:
                raise BlendplanError(
                    f"{where}: {name} is {getattr(attention, name)}; it must be positive"
                )
        if attention.heads % attention.kv_heads:
            raise BlendplanError(
                f"{where}: {attention.heads} heads are no multiple of {attention.kv_heads} KV heads"
            )
        if attention.compression and not attention.packed:
            raise BlendplanError(f"{where}: compressed history is kept in packed pages alone")
        if attention.packed and not (attention.window and attention.rope_dim <= attention.key_dim):
            raise BlendplanError(
                f"{where}: packed pages go with a window and a rotary part of at most key_dim, not "
                f"{attention.window} and {attention.rope_dim}"
            )
    if feed_forward is None:
        return
    if feed_forward.experts:
        if not 0 < feed_forward.experts_per_token <= feed_forward.experts:
            raise BlendplanError(
                f"{where}: {feed_forward.experts_per_token} experts per token out of "
                f"{feed_forward.experts} make no sense"
            )
        if feed_forward.expert_width <= 0:
            raise BlendplanError(f"{where}: expert_width is {feed_forward.expert_width}")
    elif feed_forward.width <= 0:
        raise BlendplanError(f"{where}: width of the feed-forward is {feed_forward.width}")
