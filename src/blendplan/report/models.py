"""Tables of models: the catalogue, and what is understood of one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import KvLayout, kv_layout
from blendplan.hardware.layers import Attention, FeedForward, Layer, State
from blendplan.report.quantities import binary_size, count
from blendplan.report.tables import Column, Columns

if TYPE_CHECKING:
    from blendplan.hardware.model import ModelSpec

KV_TOKENS = (1_000, 10_000, 100_000)


def model_values(spec: "ModelSpec") -> dict[str, Any]:
    """What is understood of a model, as JSON values.

    Returns:
        ``parameters``, ``active_parameters``, ``weights_bytes``, ``context_tokens``, ``layers`` by
        kind, ``experts`` of the layer that has the most, ``kv_bytes`` of one request by its
        tokens, ``kv_groups``, ``remarks`` and ``source``.
    """
    layout = kv_layout(kv_layers(spec))
    return {
        "name": spec.name,
        "parameters": spec.parameters,
        "active_parameters": spec.active_parameters,
        "weights_bytes": int(spec.weight_bytes()),
        "context_tokens": spec.max_context_tokens,
        "layers": spec.layers_by_kind,
        "experts": _most_experts(spec),
        "kv_bytes": {str(tokens): int(layout.kv_bytes(tokens)) for tokens in KV_TOKENS},
        "kv_bits": spec.kv_bits,
        "kv_groups": _groups(layout),
        "remarks": list(spec.remarks),
        "source": spec.source,
    }


def _most_experts(spec: "ModelSpec") -> int:
    parts = (layer.feed_forward for layer in spec.layers)
    return max((part.experts for part in parts if part is not None), default=0)


def _groups(layout: KvLayout) -> list[dict[str, Any]]:
    return [
        {
            "kind": group.kind,
            "layers": group.layers,
            "reach_tokens": group.reach,
            "block_tokens": group.block_tokens,
        }
        for group in layout.groups
    ]


def model_table(models: Iterable[Mapping[str, Any]]) -> Columns:
    """One row per model; values as of `model_values`."""
    return Columns(
        [
            Column("model", text=True),
            Column("parameters"),
            Column("active", spare=2),
            Column("weights"),
            Column("KV at 10,000", spare=1),
            Column("layers", text=True),
        ],
        [
            (
                model["name"],
                _parameters(model["parameters"]),
                _parameters(model["active_parameters"]),
                binary_size(model["weights_bytes"]),
                _size(model["kv_bytes"]["10000"]),
                layer_words(model["layers"]),
            )
            for model in models
        ],
    )


def model_picture(spec: "ModelSpec", values: Mapping[str, Any]) -> RenderableType:
    """Everything that is understood of one model."""
    facts = [
        ("parameters", f"{_parameters(values['parameters'])}, active {_active(values)}"),
        ("weights", binary_size(values["weights_bytes"])),
        ("context", f"{count(values['context_tokens'])} tokens"),
        ("hidden size", f"{count(spec.hidden)}, vocabulary {count(spec.vocab)}"),
        ("KV of a request", _kv(values)),
        ("KV groups", _group_words(values["kv_groups"])),
        ("read from", values["source"]),
    ]
    width = max(len(name) for name, _ in facts) + 2
    lines = [f"{name:<{width}}{value}" for name, value in facts]
    layers = Columns(
        [
            Column("layers"),
            Column("mixer", text=True),
            Column("sizes", text=True),
            Column("bits"),
            Column("feed-forward", text=True),
        ],
        [_layer_row(layer, layers) for layer, layers in spec.layer_counts.items()],
    )
    remarks = [f"remark: {remark}" for remark in values["remarks"]]
    parts: list[RenderableType] = [Text("\n".join([values["name"], *lines])), layers]
    return Group(*parts, *(Text(remark) for remark in remarks))


def _active(values: Mapping[str, Any]) -> str:
    return _parameters(values["active_parameters"])


def _kv(values: Mapping[str, Any]) -> str:
    sizes = (f"{_size(size)} at {count(int(n))}" for n, size in values["kv_bytes"].items())
    return f"{', '.join(sizes)} tokens ({values['kv_bits']:g} bits)"


def _group_words(groups: Iterable[Mapping[str, Any]]) -> str:
    words: dict[str, int] = {}
    for group in groups:
        reach = f" of {count(group['reach_tokens'])} tokens" if group["reach_tokens"] else ""
        word = f"{group['kind']}{reach} x {group['layers']} layers"
        words[word] = words.get(word, 0) + 1
    return "; ".join(f"{times} x ({word})" if times > 1 else word for word, times in words.items())


def _layer_row(layer: Layer, layers: int) -> tuple[str, ...]:
    bits = [
        *(mixer.weight_bits for mixer in layer.mixers if isinstance(mixer, Attention)),
        *(p.weight_bits for m in layer.mixers for p in m.projections if isinstance(m, State)),
    ]
    return (
        count(layers),
        layer.kind,
        "; ".join(_sizes(mixer) for mixer in layer.mixers),
        f"{max(bits):g}" if bits else "",
        _feed_forward(layer.feed_forward),
    )


def _sizes(mixer: Attention | State) -> str:
    if isinstance(mixer, State):
        return f"state of {count(mixer.state_elements + mixer.conv_elements)}"
    dims = f"{mixer.key_dim}"
    if mixer.value_dim != mixer.key_dim:
        dims += f"/{mixer.value_dim}"
    if mixer.latent:
        words = [f"{mixer.heads} heads of {dims}, latent {mixer.latent}+{mixer.rope_dim}"]
    else:
        words = [f"{mixer.heads}:{mixer.kv_heads} heads of {dims}"]
    for name, value in (
        ("window", mixer.window),
        ("chunk", mixer.chunk),
        ("top", mixer.top_k),
        ("history 1 in", mixer.compression),
    ):
        if value:
            words.append(f"{name} {count(value)}")
    return ", ".join(words)


def _feed_forward(part: FeedForward | None) -> str:
    if part is None:
        return ""
    words = []
    if part.width:
        words.append(f"dense {count(part.width)} ({part.weight_bits:g} bits)")
    if part.experts:
        words.append(
            f"{part.experts_per_token} of {part.experts} experts of {count(part.expert_width)} "
            f"({part.expert_bits:g} bits)"
        )
    if part.shared_width:
        words.append(f"shared {count(part.shared_width)}")
    return ", ".join(words)


def layer_words(kinds: Mapping[str, int]) -> str:
    """Layers by kind, as the list of models shows them."""
    words = ", ".join(f"{layers} {kind}" for kind, layers in kinds.items())
    return words.replace("feed-forward", "MLP")


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _parameters(number: float) -> str:
    """As people name models by their size: 6.7 B, 494 M."""
    if number >= 0.9995e9:
        return f"{number / 1e9:.1f} B"
    return f"{number / 1e6:.0f} M" if number >= 9.5e6 else f"{number / 1e6:.2f} M"
