"""`read_config`: a ``config.json``, or the folder that holds it, to a `ModelSpec`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.hardware.context import context_tokens
from blendplan.hardware.hf_config import extras
from blendplan.hardware.hf_config.assumptions import (
    remark_on_context,
    remark_on_dtype,
    remark_on_parts,
    remark_on_type,
)
from blendplan.hardware.hf_config.class_defaults import class_defaults
from blendplan.hardware.hf_config.encoders import encoder_parameters
from blendplan.hardware.hf_config.families import Family, family_of
from blendplan.hardware.hf_config.feed_forward import MOE_FIELDS
from blendplan.hardware.hf_config.fields import Config
from blendplan.hardware.hf_config.layer_kinds import LAYER_FIELDS, layer_count
from blendplan.hardware.hf_config.layers import layers_of
from blendplan.hardware.hf_config.main_sizes import refuse_unread_sizes, remark_on_defaults
from blendplan.hardware.hf_config.names import BIAS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, VOCAB
from blendplan.hardware.hf_config.quantisation import bits_of
from blendplan.hardware.hf_config.refused import refuse_others
from blendplan.hardware.hf_config.states import STATE_FIELDS
from blendplan.hardware.hf_config.unknown_keys import remark_on_unknown
from blendplan.hardware.kv_entries import FP8_BITS
from blendplan.hardware.layers import Layer
from blendplan.hardware.model import ModelSpec

_TEXT = ("text_config", "llm_config", "language_config", "lang_config", "language_model")
_MISTRAL = (
    "is in Mistral's own format (params.json), which is not read; give the config.json that "
    "Hugging Face has of the same model"
)
_OWN = ("aliases", "source", "text_config", "quantization_config", "compression_config")


def read_config(path: Path) -> ModelSpec:
    """The model that a ``config.json``, or the folder that holds it, describes.

    Raises:
        BlendplanError: no such file, not JSON, fields missing, of the wrong kind or not known.
    """
    if path.is_dir():
        path = _config_in(path)
    where = f"model config {path}"
    hint = "give a catalogue name or a folder with config.json"
    values = parse_json_object(read_text(path, where, hint), where)
    if {"dim", "n_layers"} <= values.keys() and "model_type" not in values:
        raise BlendplanError(f"{where} {_MISTRAL}")
    name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    beside = values.get("_hf_quant_config") or _quantisation_beside(path.parent)
    return model_from_config(name, values, where, _tokenizer_beside(path.parent), beside)


def _config_in(folder: Path) -> Path:
    """The ``config.json`` of a folder.

    Raises:
        BlendplanError: the folder has Mistral's own file alone.
    """
    path = folder / "config.json"
    if not path.exists() and (folder / "params.json").exists():
        raise BlendplanError(f"model config {folder / 'params.json'} {_MISTRAL}")
    return path


def _tokenizer_beside(folder: Path) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says; nothing where it is missing or cannot be read."""
    path = folder / "tokenizer_config.json"
    try:
        return parse_json_object(read_text(path, str(path), ""), str(path))
    except BlendplanError:  # whoever needs the file says what is wrong with it
        return {}


def _quantisation_beside(folder: Path) -> dict[str, Any]:
    """What ``hf_quant_config.json`` says; nothing where there is none.

    Raises:
        BlendplanError: there is one, and it cannot be read.
    """
    path = folder / "hf_quant_config.json"
    if not path.exists():
        return {}
    where = f"quantisation {path}"
    return parse_json_object(read_text(path, where, "mend or remove it"), where)


def model_from_config(
    name: str,
    values: Mapping[str, Any],
    where: str,
    tokenizer: Mapping[str, Any],
    beside: Mapping[str, Any],
) -> ModelSpec:
    """The model that the values of a ``config.json`` describe.

    Args:
        name: of the model.
        values: of the file.
        where: what errors call it.
        tokenizer: ``tokenizer_config.json``; empty where there is none.
        beside: ``hf_quant_config.json``; empty where there is none.

    Raises:
        BlendplanError: fields missing, of the wrong kind or not known.
    """
    config = _language_model(values, where)
    kind = config.word("model_type")
    family = family_of(kind, config)
    refuse_others(config, values)
    hidden, layers = config.count(HIDDEN), layer_count(config) * (2 if family.doubled else 1)
    if not hidden:
        raise BlendplanError(f"{where}: hidden_size is 0")
    config.layers = layers
    remark_on_type(config)
    remark_on_dtype(config, values)
    remark_on_parts(config, values, _TEXT)
    bits = bits_of(config, values, beside, layers)
    built = layers_of(config, family, hidden, layers, bits)
    remark_on_defaults(config, kind)
    used, looked_up = extras.of_model(config, layers, hidden)
    longest = context_tokens(dict(config.defaults) | dict(config.values), tokenizer)
    remark_on_context(config, tokenizer, longest)
    tied, vocab = _tied(config, values, family), config.count(VOCAB)
    encoders = encoder_parameters(config, values, hidden)
    if encoders:
        config.remark(
            f"what reads images or sound is estimated at {encoders / 1e9:.2f} B parameters; "
            "its time is not modelled"
        )
    experts = any(layer.feed_forward and layer.feed_forward.experts for layer in built)
    harmless = (*_OWN, *_redundant(built))
    refuse_unread_sizes(config, harmless)
    remark_on_unknown(config, harmless)
    return ModelSpec(
        name=name,
        hidden=hidden,
        vocab=vocab,
        max_context_tokens=longest,
        layers=built,
        tied_embeddings=tied,
        other_parameters=used,
        looked_up_parameters=looked_up,
        encoder_parameters=encoders,
        active_counts=family.active_counts if experts else "all",
        head_bits=bits.head,
        kv_bits=_kv_bits(built, bits.kv),
        source=str(values.get("source") or where.removeprefix("model config ")),
        remarks=tuple(config.remarks),
    )


def _kv_bits(layers: tuple[Layer, ...], stated: float) -> float:
    """Bits per element of the KV cache: where pages are packed, fp8 whatever a file says."""
    packed = any(layer.attention and layer.attention.packed for layer in layers)
    return FP8_BITS if packed else stated


def _language_model(values: Mapping[str, Any], where: str) -> Config:
    """The part of a file that describes the language model."""
    inner: Mapping[str, Any] = values
    within = ""
    thinker = values.get("thinker_config")
    for holder in (thinker, values):
        for name in _TEXT:
            if isinstance(holder, Mapping) and isinstance(holder.get(name), Mapping):
                inner, within = holder[name], name
                break
        if within:
            break
    kind = str(inner.get("model_type") or _text_type(values)).lower()
    return Config({**inner, "model_type": kind}, where, class_defaults(kind))


def _text_type(values: Mapping[str, Any]) -> str:
    """Model type of a language model that does not name its own."""
    kind = str(values.get("model_type") or "")
    return f"{kind}_text" if class_defaults(f"{kind}_text") else kind


def _tied(config: Config, values: Mapping[str, Any], family: Family) -> bool:
    if config.says("tie_word_embeddings") or not isinstance(
        values.get("tie_word_embeddings"), bool
    ):
        return config.flag(("tie_word_embeddings", "tie_embedding", "weight_tying"), family.tied)
    return bool(values["tie_word_embeddings"])


def _redundant(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Fields that say again what others have said, or describe layers that are not there."""
    recurrent = any(layer.state is not None for layer in layers)
    return (
        *LAYER_FIELDS,
        *MOE_FIELDS,
        *(() if recurrent else STATE_FIELDS),
        *HEADS,
        *KV_HEADS,
        *HEAD_DIM,
        *BIAS,
    )
