"""`ModelSpec` from a Hugging Face ``config.json``."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.hardware.context import context_tokens
from blendplan.hardware.layers import Attention, FeedForward, Layer
from blendplan.hardware.model import ModelSpec
from blendplan.printable import show

# Two-matrix MLPs; every other known architecture has gate, up and down.
_UNGATED = {"opt", "gpt2", "gpt_neox", "falcon", "bloom", "starcoder2", "phi", "gpt_bigcode"}


class _Config:
    """A JSON object whose fields are read with their type checked."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def count(self, *names: str, default: int | None = None) -> int:
        """The first of these fields that is set, a whole number of at least 0."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
                raise BlendplanError(
                    f"{self.where}: {name} is {_seen(value)}; expected a whole number of at least 0"
                )
            return value
        if default is None:
            raise BlendplanError(
                f"{self.where}: {names[0]} is missing; is this the config.json of a language model?"
            )
        return default

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BlendplanError(f"{self.where}: {name} is {show(value)}; expected true or false")
        return value


def read_config(path: Path) -> ModelSpec:
    """The model that a ``config.json``, or the folder that holds it, describes.

    Dense models with any number of KV heads, latent attention, mixtures of experts, and weights
    quantised to fp8, int8 or 4 bits.

    Raises:
        BlendplanError: no such file, not JSON, fields missing or of the wrong kind.
    """
    if path.is_dir():
        path = path / "config.json"
    where = f"model config {path}"
    hint = "give a catalogue name or a folder with config.json"
    values = parse_json_object(read_text(path, where, hint), where)
    name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    return model_from_config(name, values, where, _tokenizer_config(path.parent))


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """What stands beside the config; nothing where it is missing or cannot be read."""
    path = folder / "tokenizer_config.json"
    try:
        return parse_json_object(read_text(path, str(path), ""), str(path))
    except BlendplanError:  # whoever needs the tokenizer says what is wrong with it
        return {}


def model_from_config(
    name: str, values: Mapping[str, Any], where: str, tokenizer: Mapping[str, Any]
) -> ModelSpec:
    """The model that the values of a ``config.json`` describe.

    Args:
        name: of the model.
        values: of the file.
        where: what errors call it.
        tokenizer: ``tokenizer_config.json``; empty where there is none.

    Raises:
        BlendplanError: fields missing or of the wrong kind.
    """
    text = values.get("text_config")
    if isinstance(text, dict):  # multimodal: the language model is a part
        outer = {key: values[key] for key in ("quantization_config",) if key in values}
        values = outer | text
    config = _Config(values, where)
    hidden = config.count("hidden_size", "n_embd", "d_model")
    layers = config.count("num_hidden_layers", "n_layer", "num_layers")
    weight_bits, kv_bits = _bits(values, where)
    attention = _attention(config, hidden, weight_bits)
    dense, routed = _feed_forwards(config, hidden, weight_bits)
    first = _dense_layers(config, layers) if routed else layers
    of_dense, of_routed = Layer((attention,), dense), Layer((attention,), routed)
    return ModelSpec(
        name=name,
        hidden=hidden,
        vocab=config.count("vocab_size"),
        max_context_tokens=context_tokens(values, tokenizer),
        layers=(of_dense,) * first + (of_routed,) * (layers - first),
        tied_embeddings=config.flag("tie_word_embeddings", _ties(values)),
        kv_bits=kv_bits,
        source=str(values.get("source") or where.removeprefix("model config ")),
    )


def _attention(config: _Config, hidden: int, weight_bits: float) -> Attention:
    heads = config.count("num_attention_heads", "n_head")
    if not heads or not hidden:
        raise BlendplanError(f"{config.where}: hidden_size {hidden} with {heads} attention heads")
    latent = config.count("kv_lora_rank", default=0)
    key_dim = config.count(
        *(("qk_nope_head_dim",) if latent else ("head_dim",)), default=hidden // heads
    )
    return Attention(
        heads=heads,
        kv_heads=config.count("num_key_value_heads", "num_kv_heads", default=heads),
        key_dim=key_dim,
        value_dim=config.count("v_head_dim", default=key_dim) if latent else key_dim,
        latent=latent,
        rope_dim=config.count("qk_rope_head_dim", default=0) if latent else 0,
        query_latent=config.count("q_lora_rank", default=0) if latent else 0,
        weight_bits=weight_bits,
    )


def _feed_forwards(
    config: _Config, hidden: int, weight_bits: float
) -> tuple[FeedForward, FeedForward | None]:
    """That of dense layers, and that of layers with experts where there are any."""
    width = config.count("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    gated = str(config.values.get("model_type")) not in _UNGATED
    dense = FeedForward(width, gated, weight_bits=weight_bits)
    experts = config.count("num_local_experts", "n_routed_experts", "num_experts", default=0)
    if not experts:
        return dense, None
    expert_width = config.count("moe_intermediate_size", default=width)
    return dense, FeedForward(
        gated=gated,
        experts=experts,
        experts_per_token=config.count(
            "num_experts_per_tok", "experts_per_token", default=min(experts, 2)
        ),
        expert_width=expert_width,
        shared_width=_shared_width(config, expert_width),
        expert_bits=weight_bits,
        shared_bits=weight_bits,
    )


def _ties(values: Mapping[str, Any]) -> bool:
    # Gemma's published files leave the field out and rely on this class default.
    return str(values.get("model_type", "")).startswith("gemma")


def _shared_width(config: _Config, expert_intermediate: int) -> int:
    width = config.count("shared_expert_intermediate_size", default=0)
    return width or config.count("n_shared_experts", default=0) * expert_intermediate


def _dense_layers(config: _Config, layers: int) -> int:
    dense = config.count("first_k_dense_replace", default=0)
    stride = config.count("decoder_sparse_step", "moe_layer_freq", default=1)
    if stride > 1:
        dense = max(dense, layers - layers // stride)
    listed = config.values.get("mlp_only_layers")
    return min(layers, max(dense, len(listed) if isinstance(listed, list) else 0))


def _bits(values: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Bits per weight, scales included, and per KV element."""
    quantisation = values.get("quantization_config")
    if quantisation is None:
        return 16.0, 16.0
    if not isinstance(quantisation, dict):
        raise BlendplanError(f"{where}: quantization_config is not an object")
    method = str(quantisation.get("quant_method", "")).lower()
    kv_scheme = quantisation.get("kv_cache_scheme") or quantisation.get("kv_cache_quant_algo")
    kv_bits = 16.0
    if isinstance(kv_scheme, dict):
        kv_bits = float(_Config(kv_scheme, where).count("num_bits", default=8) or 8)
    elif kv_scheme:
        kv_bits = 8.0
    if method in ("fp8", "fbgemm_fp8"):
        return 8.0, kv_bits
    if method == "mxfp4":
        return 4.25, kv_bits  # one 8-bit scale for 32 weights
    if method == "modelopt":
        algorithm = str(quantisation.get("quant_algo", "FP8")).upper()
        return (4.5 if "FP4" in algorithm else 8.0), kv_bits  # one 8-bit scale for 16 weights
    if method == "bitsandbytes":
        return (4.5 if quantisation.get("load_in_4bit") else 8.0), kv_bits
    if method in ("awq", "gptq", "auto-round", "intel/auto-round"):
        return _grouped(quantisation.get("bits"), quantisation.get("group_size"), where), kv_bits
    if method == "compressed-tensors":
        groups = quantisation.get("config_groups")
        for group in groups.values() if isinstance(groups, dict) else ():
            weights = group.get("weights") if isinstance(group, dict) else None
            if isinstance(weights, dict):
                bits = _grouped(weights.get("num_bits"), weights.get("group_size"), where)
                return bits, kv_bits
    raise BlendplanError(
        f"{where}: quantisation {_seen(method)} is not known; known are fp8, awq, gptq, "
        "bitsandbytes, compressed-tensors, modelopt and mxfp4"
    )


def _grouped(bits: object, group: object, where: str) -> float:
    """Bits per weight with a 16-bit scale and a zero point for each group of weights."""
    if not isinstance(bits, int) or bits not in (2, 3, 4, 8):
        raise BlendplanError(f"{where}: weights of {show(bits)} bits; expected 2, 3, 4 or 8")
    if bits == 8:
        return 8.0
    size = group if isinstance(group, int) and 0 < group < 10**9 else math.inf
    return bits + (16 + bits) / size


def _seen(value: object) -> str:
    return repr(value[:40]) if isinstance(value, str) else show(value)
