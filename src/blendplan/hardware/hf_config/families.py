"""What only the class of a model knows, by model type; facts of the published implementations."""

from dataclasses import dataclass, replace

from blendplan.hardware.hf_config.fields import Config


@dataclass(frozen=True)
class Family:
    """Facts that stand in no field of a config.

    Attributes:
        pattern: kinds of layers, repeated, where the file names none: F full attention, S sliding
            window, C chunked, L linear, as in `layer_kinds`.
        last_full: the last layer has full attention whatever the pattern says.
        linear: what a linear layer is.
        gated: gate, up and down matrices.
        qkv_bias: biases of query, key and value without a field that says so.
        norms: norms of the hidden width in a layer.
        qk_norm: elements of the norms of queries and keys: ``head`` (head width each), ``heads``
            (all heads each), or none.
        shared_width: the field whose width one shared expert has in each layer with experts.
        interleaved: the field that says that every so many layers one has experts.
        output_gate: the output of attention is gated: ``query`` (as wide as the queries), ``head``
            (one per head).
        state_bits: of a recurrent state where no field says.
        alone: each layer is one mixer or one feed-forward.
        expert_bias: the matrices of experts have biases.
        active_counts: what the publisher counts as active; see `ModelSpec`.
        shared_blocks: attention and MLP are blocks whose weights several layers share.
        doubled: a layer of the file is two, the first of them with experts beside its MLP.
        latent_by_heads: KV is kept by heads although it comes from a latent.
        no_mlp: kinds of layers without feed-forward.
        tied: embedding and output head are one matrix where no field says so.
    """

    pattern: str = ""
    last_full: bool = False
    linear: str = ""
    gated: bool = True
    qkv_bias: bool = False
    norms: int = 2
    qk_norm: str = ""
    shared_width: str = ""
    interleaved: str = ""
    output_gate: str = ""
    state_bits: float = 16.0
    alone: bool = False
    expert_bias: bool = False
    active_counts: str = "all"
    shared_blocks: bool = False
    doubled: bool = False
    latent_by_heads: bool = False
    no_mlp: tuple[str, ...] = ()
    tied: bool = False


_LOOKED_UP = Family(active_counts="head")
_QWEN2 = Family(qkv_bias=True)
_QWEN3 = Family(qk_norm="head")
_TWO_MATRICES = Family(gated=False)
_DELTA = Family(pattern="LLLF", linear="gated_delta", qk_norm="head", output_gate="query")
_DELTA32 = replace(_DELTA, state_bits=32.0)
_GEMMA3 = Family(pattern="SSSSSF", norms=4, qk_norm="head")

FAMILIES: dict[str, Family] = {
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen": _QWEN2,
    "seed_oss": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "qwen3_omni_moe_text": _QWEN3,
    "qwen3_next": replace(_DELTA, active_counts="layers"),
    "qwen3_5_text": _DELTA32,
    "qwen3_5_moe_text": _DELTA32,
    "qwen3_5": _DELTA32,
    "qwen3_5_moe": _DELTA32,
    "olmo_hybrid": Family(pattern="LLLF", linear="gated_delta", qk_norm="heads", state_bits=32.0),
    "gemma": Family(),
    "gemma2": Family(pattern="SF", norms=4),
    "vaultgemma": Family(pattern="SF"),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma3n": Family(pattern="SSSSF", norms=4, qk_norm="head"),
    "gemma3n_text": Family(pattern="SSSSF", norms=4, qk_norm="head"),
    "gemma4_text": Family(pattern="SSSSSF", last_full=True, norms=4, qk_norm="head"),
    "gpt_oss": Family(pattern="SF", expert_bias=True, active_counts="head", qkv_bias=True),
    "cohere": Family(norms=1),
    "cohere2": Family(pattern="SSSF", norms=1),
    "cohere2_moe": Family(pattern="SSSF", norms=1),
    "exaone4": Family(pattern="SSSF", qk_norm="head"),
    "exaone_moe": Family(pattern="SSSF", qk_norm="head"),
    "olmo2": Family(qk_norm="heads"),
    "olmo3": Family(pattern="SSSF", qk_norm="heads"),
    "olmoe": Family(qk_norm="heads"),
    "flex_olmo": Family(qk_norm="heads"),
    "cwm": Family(pattern="FSSS"),
    "afmoe": Family(pattern="SSSF", norms=4, qk_norm="head", output_gate="query"),
    "llama4_text": Family(
        pattern="CCCF",
        shared_width="intermediate_size",
        interleaved="interleave_moe_layer_step",
    ),
    "step3_text": Family(),
    "step3p5": Family(qk_norm="head"),
    "step3p7": Family(qk_norm="head"),
    "mimo_v2_flash": Family(),
    "ministral": Family(pattern="S"),
    "mistral": Family(pattern="S"),
    "mixtral": Family(pattern="S"),
    "phi3": Family(pattern="S"),
    "phi4mm": Family(pattern="S"),
    "phimoe": Family(pattern="S"),
    "starcoder2": Family(pattern="S", gated=False),
    "stablelm": Family(),
    "minimax": Family(pattern="FL", linear="lightning"),
    "minimax_m1": Family(linear="lightning", active_counts="layers"),
    "minimax_text_01": Family(linear="lightning", active_counts="layers"),
    "minimax_m2": Family(qk_norm="heads", active_counts="layers"),
    "minimax_m3_vl_text": Family(qk_norm="head"),
    "minimax_m3_vl": Family(qk_norm="head"),
    "kimi_linear": Family(pattern="LLLF", linear="kda", state_bits=32.0),
    "bailing_hybrid": Family(pattern="LLLLLF", linear="kda", state_bits=32.0),
    "bailing_moe_linear": Family(linear="lightning", qk_norm="head"),
    "bailing_moe_v2": Family(qk_norm="head"),
    "jamba": Family(pattern="L", linear="mamba1"),
    "mamba": Family(pattern="L", linear="mamba1", norms=1, no_mlp=("linear",)),
    "falcon_mamba": Family(pattern="L", linear="mamba1", norms=1, no_mlp=("linear",)),
    "mamba2": Family(pattern="L", linear="mamba2", norms=1, no_mlp=("linear",)),
    "bamba": Family(pattern="L", linear="mamba2"),
    "granitemoehybrid": Family(pattern="L", linear="mamba2"),
    "falcon_h1": Family(pattern="H", linear="mamba2"),
    "nemotron_h": Family(
        linear="mamba2",
        gated=False,
        alone=True,
        norms=1,
        state_bits=32.0,
        active_counts="head",
    ),
    "zamba": Family(linear="mamba1", norms=1, no_mlp=("linear",), shared_blocks=True),
    "zamba2": Family(linear="mamba2", norms=1, no_mlp=("linear",), shared_blocks=True),
    "hymba": Family(pattern="H", linear="mamba1"),
    "phi4flash": Family(linear="mamba1"),
    "plamo2": Family(linear="plamo2", norms=4, qk_norm="heads", tied=True),
    "lfm2": Family(linear="short_conv", qk_norm="head"),
    "lfm2_moe": Family(linear="short_conv", qk_norm="head"),
    "recurrent_gemma": Family(pattern="LLS", linear="rglru"),
    "modernbert-decoder": Family(pattern="FSS"),
    "chatglm": Family(),
    "glm4": Family(norms=4),
    "glm4_moe": Family(active_counts="layers"),
    "glm4_moe_lite": Family(active_counts="layers"),
    "glm4v_moe_text": Family(active_counts="layers"),
    "glm_moe_dsa": Family(active_counts="layers"),
    "deepseek_v2": _LOOKED_UP,
    "deepseek_v3": _LOOKED_UP,
    "deepseek_v32": _LOOKED_UP,
    "deepseek_v4": _LOOKED_UP,
    "kimi_k2": _LOOKED_UP,
    "hunyuan_v1_dense": _QWEN3,
    "hunyuan_v1_moe": _QWEN3,
    "hunyuan": _QWEN3,
    "hy_v3": _QWEN3,
    "ernie4_5_moe": Family(),
    "laguna": Family(qk_norm="head", output_gate="head"),
    "bitnet": Family(),
    "molmo": Family(),
    "hf_olmo": Family(norms=0),
    "phi3small": Family(tied=True),
    "longcat_flash": Family(doubled=True, active_counts="head"),
    "minicpm3": Family(latent_by_heads=True),
    "dbrx": Family(),
    "smollm3": Family(),
    "apertus": Family(gated=False, qk_norm="head"),
    "arcee": _TWO_MATRICES,
    "nemotron": _TWO_MATRICES,
    "nanochat": _TWO_MATRICES,
    "opt": _TWO_MATRICES,
    "gpt2": _TWO_MATRICES,
    "gptj": _TWO_MATRICES,
    "gpt_neo": _TWO_MATRICES,
    "gpt_neox": _TWO_MATRICES,
    "gpt_bigcode": _TWO_MATRICES,
    "falcon": _TWO_MATRICES,
    "refinedweb": _TWO_MATRICES,
    "refinedwebmodel": _TWO_MATRICES,
    "bloom": _TWO_MATRICES,
    "mpt": _TWO_MATRICES,
    "phi": _TWO_MATRICES,
    "persimmon": _TWO_MATRICES,
    "codegen": _TWO_MATRICES,
    "biogpt": _TWO_MATRICES,
    "xglm": _TWO_MATRICES,
}

FOUR_TIMES = (
    *("gpt2", "gptj", "gpt_neo", "gpt_bigcode", "codegen"),
    *("bloom", "mpt", "falcon", "refinedweb", "refinedwebmodel"),
)
"""Model types whose MLP is four times as wide as the model unless a field says otherwise."""

_UNKNOWN = Family()
_WINDOWED = Family(pattern="S")


def family_of(model_type: str, config: Config) -> Family:
    """The row of a model type; where there is none, a window in the file holds in all layers.

    Engines do the same with architectures that have no rule of their own.
    """
    found = FAMILIES.get(model_type)
    if found is not None:
        return found
    return _WINDOWED if config.says("sliding_window") else _UNKNOWN
