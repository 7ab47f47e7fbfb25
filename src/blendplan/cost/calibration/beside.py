"""`beside`: what one calibration found, beside what an earlier one did."""

from collections.abc import Mapping
from typing import Any

_THE_REST = "; what that lacks: "


def beside(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Fitted tables of a GPU, the new ones and those that they lack.

    Whatever both have is the new one's. But the kernels that planners count on stay those of the
    old: they are an engine's, and a measurement by other kernels of the same GPU stands beside
    them.

    Args:
        new, old: as in ``GpuSpec.fitted``.
    """
    if not old:
        return dict(new)
    merged = _merged(new, old)
    default = _merged(old.get("default", {}), new.get("default", {}))
    if default:
        merged["default"] = default
    own, others = str(new.get("source", "")), str(old.get("source", ""))
    if own and others:
        # The same measurements again are told once.
        again = others == own or others.startswith(own + _THE_REST)
        merged["source"] = others if again else own + _THE_REST + others
    return merged


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The first, with what only the second has; in the order of the second."""
    merged = dict(second)
    for name, value in first.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(value, merged[name]) if both else value
    return merged
