"""Small configs in the vocabulary of published ones, written anew, and the model that comes out."""

from typing import Any

from blendplan.hardware.hf_config.read import model_from_config
from blendplan.hardware.model import ModelSpec


def config(**values: Any) -> dict[str, Any]:
    """A Llama-like config of eight layers with other fields in place of its own."""
    return {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    } | values


def read(values: dict[str, Any], beside: dict[str, Any] | None = None) -> ModelSpec:
    """What the reader makes of it."""
    return model_from_config("m", values, "model config m", {}, beside or {})


def kinds(**values: Any) -> list[str]:
    """The kind of each layer."""
    return [layer.kind for layer in read(config(**values)).layers]
