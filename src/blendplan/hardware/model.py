"""`ModelSpec`: the shape of a language model, and the counts that follow from it."""

from dataclasses import dataclass

from blendplan.errors import BlendplanError

KV_BITS = {"bf16": 16.0, "fp16": 16.0, "bfloat16": 16.0, "float16": 16.0, "fp8": 8.0}


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
    """

    name: str
    n: int
    k: int
    layers: int
    experts: int = 1
    experts_per_token: int = 1
    weight_bits: float = 16.0

    @property
    def parameters(self) -> int:
        """Weights held, over all layers and experts."""
        return self.n * self.k * self.layers * self.experts

    @property
    def active_parameters(self) -> int:
        """Weights that one token is multiplied with."""
        return self.n * self.k * self.layers * self.experts_per_token

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights held."""
        return self.parameters * self.weight_bits / 8


@dataclass(frozen=True)
class ModelSpec:
    """Shape of a decoder-only transformer, in the words of Hugging Face's ``config.json``.

    Attributes:
        name: catalogue name, or the folder's name.
        layers, hidden, heads, kv_heads, head_dim, intermediate, vocab: the usual shape;
            ``intermediate`` is that of dense layers.
        max_context_tokens: longest context the model takes.
        tied_embeddings: the output head is the embedding matrix.
        gated_mlp: gate, up and down matrices (SwiGLU); False for two matrices.
        experts, experts_per_token, expert_intermediate, shared_intermediate: mixture of experts;
            ``shared_intermediate`` is the summed width of the experts every token visits.
        dense_layers: layers with a dense MLP in a mixture of experts.
        q_lora_rank, kv_lora_rank, rope_head_dim, value_head_dim: multi-head latent attention;
            there, ``head_dim`` is the part of a query head without rotary embedding.
        weight_bits: bits per weight of linear layers, scales included. Embedding and output head
            stay at 16.
        kv_bits: bits per element of the KV cache.
        source: where the numbers come from.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_context_tokens: int
    tied_embeddings: bool = False
    gated_mlp: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    rope_head_dim: int = 0
    value_head_dim: int = 0
    weight_bits: float = 16.0
    kv_bits: float = 16.0
    source: str = ""

    def __post_init__(self) -> None:
        positive = ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")
        for name in (*positive, "max_context_tokens", "weight_bits", "kv_bits"):
            if not 0 < getattr(self, name) < 1e9:
                raise BlendplanError(
                    f"model {self.name}: {name} is {getattr(self, name)}; it must be positive"
                )
        if self.heads % self.kv_heads:
            raise BlendplanError(
                f"model {self.name}: {self.heads} heads are no multiple of {self.kv_heads} KV heads"
            )
        if self.experts and not 0 < self.experts_per_token <= self.experts:
            raise BlendplanError(
                f"model {self.name}: {self.experts_per_token} experts per token out of "
                f"{self.experts} make no sense"
            )
        if not self.experts and self.intermediate <= 0:
            raise BlendplanError(f"model {self.name}: intermediate is {self.intermediate}")

    @property
    def latent_attention(self) -> bool:
        """Whether it has multi-head latent attention (MLA)."""
        return self.kv_lora_rank > 0

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
        """All weights. Norms and biases, under 0.02 % of any known model, are left out."""
        linear = sum(shape.parameters for shape in linear_shapes(self))
        return linear + self.head_parameters + self.embedding_parameters

    @property
    def active_parameters(self) -> int:
        """Weights used per token: those of the experts it visits, embedding and head included."""
        linear = sum(shape.active_parameters for shape in linear_shapes(self))
        return linear + self.head_parameters + self.embedding_parameters

    def attention_flop_per_pair(self, tp: int = 1) -> float:
        """FLOP of attention per (query, key) token pair on one GPU, over all layers."""
        if self.latent_attention:
            per_head = 2 * (self.head_dim + self.rope_head_dim + self.value_head_dim)
        else:
            per_head = 4 * self.head_dim
        return per_head * self.heads / tp * self.layers

    def kv_bytes_per_token(self, tp: int = 1, kv_dtype: str = "auto") -> float:
        """KV-cache bytes of one token on one GPU, over all layers.

        Latent attention keeps one vector for all heads, on every GPU; with more GPUs than KV
        heads, the heads are replicated.
        """
        bits = kv_bits(self, kv_dtype)
        if self.latent_attention:
            elements = self.kv_lora_rank + self.rope_head_dim
        else:
            elements = 2 * kv_heads_per_gpu(self, tp) * self.head_dim
        return elements * self.layers * bits / 8

    def weight_bytes(self, tp: int = 1) -> float:
        """Bytes of weights on one GPU."""
        linear = sum(shape.weight_bytes for shape in linear_shapes(self, tp))
        return linear + 2 * (self.head_parameters + self.embedding_parameters) / tp


def kv_bits(model: ModelSpec, kv_dtype: str) -> float:
    """Bits per element of a KV cache of that dtype; ``auto`` is the model's own."""
    if kv_dtype == "auto":
        return model.kv_bits
    if kv_dtype not in KV_BITS:
        raise BlendplanError(
            f"unknown KV cache dtype {kv_dtype!r}: known are auto, {', '.join(KV_BITS)}"
        )
    return KV_BITS[kv_dtype]


def kv_heads_per_gpu(model: ModelSpec, tp: int) -> int:
    """KV heads on one GPU of a tensor-parallel group; at least one."""
    return max(1, model.kv_heads // tp)


def linear_shapes(model: ModelSpec, tp: int = 1) -> list[LinearShape]:
    """The linear layers on one GPU of a tensor-parallel group, without embedding and output head.

    Shapes are fused as vLLM and SGLang fuse them: query, key and value in one, gate and up in one.

    Raises:
        BlendplanError: tp does not divide the model.
    """
    _check_tp(model, tp)
    heads, layers, hidden, bits = model.heads // tp, model.layers, model.hidden, model.weight_bits

    def shape(
        name: str, n: int, k: int, count: int, experts: int = 1, used: int = 1
    ) -> LinearShape:
        return LinearShape(name, n, k, count, experts, used, bits)

    if model.latent_attention:
        query_dim = model.head_dim + model.rope_head_dim
        latent = model.kv_lora_rank + model.rope_head_dim
        if model.q_lora_rank:
            shapes = [
                shape("qkv_a", model.q_lora_rank + latent, hidden, layers),
                shape("q_b", heads * query_dim, model.q_lora_rank, layers),
            ]
        else:
            shapes = [
                shape("q", heads * query_dim, hidden, layers),
                shape("kv_a", latent, hidden, layers),
            ]
        width = model.head_dim + model.value_head_dim
        shapes.append(shape("kv_b", heads * width, model.kv_lora_rank, layers))
        shapes.append(shape("o", hidden, heads * model.value_head_dim, layers))
    else:
        kv_heads = kv_heads_per_gpu(model, tp)
        shapes = [
            shape("qkv", (heads + 2 * kv_heads) * model.head_dim, hidden, layers),
            shape("o", hidden, heads * model.head_dim, layers),
        ]
    into = 2 if model.gated_mlp else 1
    dense_layers = model.dense_layers if model.experts else layers
    if dense_layers:
        width = model.intermediate // tp
        shapes.append(shape("gate_up", into * width, hidden, dense_layers))
        shapes.append(shape("down", hidden, width, dense_layers))
    if model.experts:
        routed = layers - dense_layers
        experts, used = model.experts, model.experts_per_token
        shapes.append(LinearShape("router", experts, hidden, routed))
        if model.shared_intermediate:
            width = model.shared_intermediate // tp
            shapes.append(shape("shared_gate_up", into * width, hidden, routed))
            shapes.append(shape("shared_down", hidden, width, routed))
        width = model.expert_intermediate // tp
        shapes.append(shape("expert_gate_up", into * width, hidden, routed, experts, used))
        shapes.append(shape("expert_down", hidden, width, routed, experts, used))
    return shapes


def _check_tp(model: ModelSpec, tp: int) -> None:
    if tp < 1 or model.heads % tp:
        fits = [str(degree) for degree in (1, 2, 4, 8, 16) if model.heads % degree == 0]
        raise BlendplanError(
            f"tensor parallel degree {tp} does not divide the {model.heads} heads of "
            f"{model.name}; use --tp {', '.join(fits)}"
        )
