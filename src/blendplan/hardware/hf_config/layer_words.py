"""What layers are called in lists by layer, and the kinds that these words mean."""

from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.fields import Config, seen

# What layers are called in lists; the values are the kinds that the rest of the reader knows.
# `linear` is any recurrence: which one, other fields and the model type say.
_WORDS = {
    "full": "full",
    "full_attention": "full",
    "attention": "full",
    "global": "full",
    "global_attention": "full",
    "f": "full",
    "a": "full",
    "*": "full",
    "swa": "sliding",
    "sliding": "sliding",
    "local": "sliding",
    "local_attention": "sliding",
    "sliding_attention": "sliding",
    "sliding_window": "sliding",
    "sliding_window_attention": "sliding",
    "reference_sliding_attention": "sliding",
    "s": "sliding",
    "chunked_attention": "chunked",
    "chunked": "chunked",
    "c": "chunked",
    "linear_attention": "linear",
    "linear": "linear",
    "recurrent": "linear",
    "mamba": "linear",
    "mamba2": "linear",
    "gated_deltanet": "linear",
    "gated_delta_net": "linear",
    "deltanet": "linear",
    "kda": "linear",
    "lightning": "linear",
    "lightning_attention": "linear",
    "conv": "linear",
    "short_conv": "linear",
    "m": "linear",
    "l": "linear",
    "hybrid": "hybrid",
    "hybrid_sliding": "hybrid sliding",
    "h": "hybrid",
    "mlp": "mlp",
    "-": "mlp",
    "moe": "moe",
    "e": "moe",
    "indexed_attention": "full",
    "deepseek_sparse_attention": "full",
    "sparse_attention": "full",
    "minimax_m3_sparse": "full",
    "compressed_sparse_attention": "full",
    "heavily_compressed_attention": "full",
    "none": "none",
    "no_op": "none",
    "noop": "none",
}


def layer_word(word: Any, name: str, config: Config) -> str:
    """The kind that a word stands for.

    Args:
        word: from a list of layers.
        name: of the field that has the list.
        config: of the model, which gets a remark where the word is a kind of attention not known.

    Raises:
        BlendplanError: a word for nothing that is known.
    """
    key = str(word).lower().strip()
    kind = _WORDS.get(key)
    if kind is None and "attention" in key:
        kind = "full"
        config.remark(
            f"{name} has {key!r}, which is not known: read as full attention, which keeps the most "
            "KV and costs the most"
        )
    if kind is None:
        raise BlendplanError(f"{config.where}: {name} has {seen(word)}, a layer that is not known")
    return kind
