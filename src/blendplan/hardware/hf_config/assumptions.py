"""What is taken of a model where its file says nothing, or nothing that is understood: remarks."""

from collections.abc import Mapping
from typing import Any

from blendplan.hardware.context import CONTEXT_FIELDS, is_length
from blendplan.hardware.hf_config.class_defaults import class_defaults
from blendplan.hardware.hf_config.families import FAMILIES
from blendplan.hardware.hf_config.fields import Config, seen
from blendplan.hardware.hf_config.names import HEAD_DIM, HEADS

# Types without facts of their own whose fields are those of Llama.
_AS_LLAMA = ("nemotron-nas", "deepseek", "internlm2", "baichuan", "yi", "mllama_text_model")
_DTYPES = ("auto", "half", "float", "double", "float16", "bfloat16", "float32", "float64")


def remark_on_type(config: Config) -> None:
    """A model type that is absent, or that nothing is known of."""
    kind = config.word("model_type")
    if kind in FAMILIES or class_defaults(kind) or kind in _AS_LLAMA:
        return
    what = f"model type {seen(kind)} is not known" if kind else "no model_type in the file"
    config.remark(
        f"{what}: read as a model like Llama, but for what the fields say (gated MLP, no biases, "
        "two norms a layer)"
    )


def remark_on_dtype(config: Config, values: Mapping[str, Any]) -> None:
    """A word for the dtype of the weights that names none; engines load 16 bits whatever it is."""
    for holder in (values, config.values):
        for name in ("torch_dtype", "dtype"):
            found = holder.get(name)
            if found is None:
                continue
            word = str(found).lower().removeprefix("torch.")
            if word not in _DTYPES and not word.startswith("float8"):
                config.remark(
                    f"{name} {seen(found)} is not known: weights that are not quantised are taken "
                    "to have 16 bits"
                )


def remark_on_context(config: Config, tokenizer: Mapping[str, Any], tokens: int) -> None:
    """A context that no field of the file gives.

    Args:
        config: of the model.
        tokenizer: ``tokenizer_config.json``; empty where there is none.
        tokens: that are taken.
    """
    named = {name: config.values[name] for name in CONTEXT_FIELDS if name in config.values}
    if any(is_length(value) for value in named.values()):
        return
    wrong = [f"{name} is {seen(value)}" for name, value in named.items() if value is not None]
    what = ", ".join(wrong) or "max_position_embeddings is not in the file"
    by_class = {config.defaults.get(name) for name in CONTEXT_FIELDS if name not in named}
    if tokenizer.get("model_max_length") == tokens:
        whose = "as its tokenizer states"
    elif any(map(is_length, by_class)):
        whose = f"by the class of {config.word('model_type')}"
    else:
        whose = "as engines assume"
    config.remark(f"{what}: a context of {tokens:,} tokens is taken, {whose}")


def remark_on_parts(config: Config, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Fields for the language model within a larger one that hold no object.

    Args:
        config: of the model.
        values: of the whole file.
        names: of such fields.
    """
    for name in names:
        found = values.get(name)
        if found is not None and not isinstance(found, Mapping):
            config.remark(
                f"{name} is {seen(found)}, which is no object: the fields beside it are read"
            )


def remark_on_heads(config: Config, hidden: int, heads: int) -> None:
    """Heads without a stated width that do not divide the width of the model."""
    if config.value(HEAD_DIM) is None and hidden % heads:
        config.remark(
            f"hidden_size {hidden} is no multiple of {HEADS[0]} {heads}, and no field says how "
            f"wide a head is: {max(1, hidden // heads)} is taken"
        )
