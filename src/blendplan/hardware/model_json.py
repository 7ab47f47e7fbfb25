"""A model as JSON values, for plans that were made for a model of the user's own."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.catalogue import spec_from_table
from blendplan.hardware.layers import Attention, FeedForward, Layer, Projection, State
from blendplan.hardware.model import ModelSpec
from blendplan.printable import show

_MOST_LAYERS = 10_000


def model_as_json(model: ModelSpec) -> dict[str, Any]:
    """The whole of a model as JSON values; `model_from_json` gives it back.

    ``layer_kinds`` lists the layers that differ, ``layers`` which of them each layer is.
    """
    kinds = {layer: row for row, layer in enumerate(model.layer_counts)}
    plain = {
        item.name: getattr(model, item.name)
        for item in fields(model)
        if item.name not in ("layers", "remarks")
    }
    return plain | {
        "remarks": list(model.remarks),
        "layer_kinds": [_layer_as_json(layer) for layer in kinds],
        "layers": [kinds[layer] for layer in model.layers],
    }


def model_from_json(values: Mapping[str, Any], where: str) -> ModelSpec:
    """The model that `model_as_json` wrote.

    Raises:
        BlendplanError: fields missing, unknown or of the wrong kind.
    """
    table = dict(values)
    kinds = [
        _layer_from_json(layer, where) for layer in _list(table.pop("layer_kinds", None), where)
    ]
    rows = _list(table.get("layers"), where)
    if len(rows) > _MOST_LAYERS or not all(_is_row(row, len(kinds)) for row in rows):
        raise BlendplanError(f"{where}: layers is no list of rows of its {len(kinds)} layer_kinds")
    remarks = _list(table.get("remarks", []), where)
    if not all(isinstance(remark, str) for remark in remarks):
        raise BlendplanError(f"{where}: remarks is no list of texts")
    table |= {"layers": tuple(kinds[row] for row in rows), "remarks": tuple(remarks)}
    return spec_from_table(ModelSpec, table, where)


def _layer_as_json(layer: Layer) -> dict[str, Any]:
    part = layer.feed_forward
    return {
        "mixers": [_changed(mixer) for mixer in layer.mixers],
        "feed_forward": None if part is None else _changed(part),
        "projections": [asdict(extra) for extra in layer.projections],
        "other_parameters": layer.other_parameters,
    }


def _changed(part: Attention | State | FeedForward) -> dict[str, Any]:
    """Its fields that are not as they are by default."""
    values = asdict(part)
    defaults = {item.name: item.default for item in fields(part)}
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    if "projections" in changed:
        changed["projections"] = list(changed["projections"])
    return changed


def _layer_from_json(values: Any, where: str) -> Layer:
    layer = dict(_mapping(values, where))
    mixers = tuple(_mixer(mixer, where) for mixer in _list(layer.get("mixers"), where))
    part = layer.get("feed_forward")
    layer |= {"mixers": mixers, "projections": _projections(layer, where)}
    if part is not None:
        layer["feed_forward"] = spec_from_table(FeedForward, _mapping(part, where), where)
    return spec_from_table(Layer, layer, where)


def _mixer(values: Any, where: str) -> Attention | State:
    table = dict(_mapping(values, where))
    table["projections"] = _projections(table, where)
    if "kind" in table:
        return spec_from_table(State, table, where)
    return spec_from_table(Attention, table, where)


def _projections(table: Mapping[str, Any], where: str) -> tuple[Projection, ...]:
    return tuple(
        spec_from_table(Projection, _mapping(extra, where), where)
        for extra in _list(table.get("projections", []), where)
    )


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BlendplanError(f"{where}: {show(value)} is not a list")
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BlendplanError(f"{where}: {show(value)} is not an object")
    return value


def _is_row(value: Any, kinds: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < kinds
