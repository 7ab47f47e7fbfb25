"""Layers that a list of objects describes one by one, as architecture search leaves them."""

from typing import Any

from blendplan.hardware.hf_config.fields import Config

_ATTENTION = {
    "window_length": "a window",
    "num_sink_tokens": "sinks",
    "sparsify": "sparsity",
    "replace_with_linear": "a linear layer in place of attention",
}


def with_blocks(config: Config, layers: int) -> tuple[Config, list[str]] | None:
    """The config with what ``block_configs`` says as lists by layer, and the kinds of layers.

    Returns:
        None without such a list; else a layer is ``full``, ``none`` (no attention), with
        ``intermediate_size`` 0 where it has no MLP.
    """
    blocks = config.items("block_configs")
    if blocks is None or len(blocks) < layers:
        return None
    heads = config.count("num_attention_heads")
    hidden = config.count("hidden_size")
    kinds, kv_heads, widths = [], [], []
    for block in blocks[:layers]:
        attention, part = _object(block, "attention"), _object(block, "ffn")
        for name, what in _ATTENTION.items():
            if attention.get(name):
                config.remark(f"block_configs has {what}, which is not modelled")
        gone = bool(attention.get("no_op") or attention.get("replace_with_linear"))
        group = attention.get("n_heads_in_group")
        stated = attention.get("num_key_value_heads")
        kinds.append("none" if gone else "full")
        kv_heads.append(stated or (heads // group if isinstance(group, int) and group else heads))
        widths.append(0 if part.get("no_op") else _width(part, hidden))
    values = {**config.values, "num_key_value_heads": kv_heads, "intermediate_size": widths}
    changed = Config(values, config.where, config.defaults)
    changed.read, changed.remarks, changed.layers = config.read, config.remarks, layers
    return changed, kinds


def _object(block: Any, name: str) -> dict[str, Any]:
    found = block.get(name) if isinstance(block, dict) else None
    return found if isinstance(found, dict) else {}


def _width(part: dict[str, Any], hidden: int) -> int:
    stated, factor = part.get("intermediate_size"), part.get("ffn_mult")
    if isinstance(stated, int):
        return stated
    if isinstance(factor, int | float):  # two thirds for the third matrix, in multiples of 256
        return -(-int(2 * factor * hidden / 3) // 256) * 256
    return 4 * hidden
