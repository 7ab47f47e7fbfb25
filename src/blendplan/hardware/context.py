"""The longest context of a model, as engines work it out from its files."""

from collections.abc import Iterator, Mapping
from typing import Any

# Fields of config.json that bound the context; the smallest counts.
CONTEXT_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Of these the field above holds the scaled length already, or the model is left as it was trained.
_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
DEFAULT_CONTEXT_TOKENS = 2048
"""What engines assume of a model that states no context."""


def context_tokens(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """Tokens of prompt and output that a model takes, unless the engine is told otherwise.

    As vLLM's `_get_and_verify_max_len` (``vllm/config/model.py``), which SGLang differs from only
    in not asking the tokenizer.

    Args:
        config: ``config.json``, that of the language model where there are several.
        tokenizer: ``tokenizer_config.json``; empty where there is none.
    """
    stated = [length for name in CONTEXT_FIELDS if (length := _length(config.get(name)))]
    longest = min(stated, default=0)
    longest = _length(config.get("model_max_length")) or longest  # Command R: it alone counts
    by_tokenizer = _length(tokenizer.get("model_max_length"))
    if by_tokenizer and (not longest or by_tokenizer < longest):
        longest = by_tokenizer
    if not longest:
        return DEFAULT_CONTEXT_TOKENS
    scaling = list(_rope(config))
    if "gemma3" not in str(config.get("model_type", "")):
        for rope in scaling:
            factor: Any = rope.get("factor")
            if _rope_type(rope) not in _SCALED_ALREADY and _is_number(factor) and factor < 1e9:
                longest = int(longest * factor)
                break
    original = _length(config.get("original_max_position_embeddings"))
    if original and any(_rope_type(rope) in ("longrope", "su") for rope in scaling):
        longest = original  # engines keep to the length of short requests
    return longest


def _rope(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Scalings of the rotary embedding: one, or one for each type of layer."""
    for name in ("rope_scaling", "rope_parameters"):
        found = config.get(name)
        if isinstance(found, dict) and found:
            inner = [value for value in found.values() if isinstance(value, dict) and value]
            yield from inner or [found]
            return


def _rope_type(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type", rope.get("type", "default")))


def _length(value: Any) -> int:
    """A length, 0 for what is none; tokenizers write 1e30 for no limit."""
    return int(value) if _is_number(value) and 1 <= value < 1e9 else 0


def is_length(value: Any) -> bool:
    """Whether a field holds a number of tokens."""
    return _length(value) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
