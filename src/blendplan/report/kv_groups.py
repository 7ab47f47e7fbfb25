"""What the KV cache takes per token, by kinds of layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from blendplan.hardware.kv_layer import KvLayer
from blendplan.report.quantities import count, rounded

_WORDS = {"full": "all tokens", "sliding": "a window", "chunked": "a chunk", "state": "a state"}


def kv_groups(layers: Sequence[KvLayer]) -> list[dict[str, Any]]:
    """What layers keep on one GPU, those that keep the same together, as JSON values.

    Keys: ``kind``, ``layers``, ``reach_tokens`` (0 for all), and over these layers
    ``bytes_per_token`` and ``state_bytes``.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for layer in layers:
        group = found.setdefault(
            (layer.kind, layer.reach),
            {
                "kind": layer.kind,
                "layers": 0,
                "reach_tokens": layer.reach,
                "bytes_per_token": 0,
                "state_bytes": 0,
            },
        )
        group["layers"] += 1
        group["bytes_per_token"] += layer.bytes_per_token
        group["state_bytes"] += layer.state_bytes
    return list(found.values())


def kv_rows(groups: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The same as a fact for each group, for people."""
    rows: dict[str, str] = {}
    for group in groups:
        kind, layers = group["kind"], group["layers"]
        if kind == "state":
            what = f"{rounded(group['state_bytes'])}B a request"
        else:
            what = f"{count(group['bytes_per_token'])} bytes a token"
            if group["reach_tokens"]:
                what += f", of the last {count(group['reach_tokens'])} tokens"
        name, said = f"KV, {_WORDS[kind]}", f"{what}, in {layers} layers on a GPU"
        rows[name] = f"{rows[name]}; {said}" if name in rows else said
    return rows
