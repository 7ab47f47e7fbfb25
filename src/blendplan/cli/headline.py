"""The numbers that ``--json`` of `plan`, `inspect` and `compare` have in common."""

from collections.abc import Mapping
from typing import Any

_PREDICTED = ("makespan_s", "throughput_tokens_per_s", "steps", "preemptions")


def headline(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that scripts may rely on, out of a plan's metadata."""
    return {
        "requests": metadata["requests"],
        "policy": metadata["policy"],
        "gpu": metadata["gpu"],
        "model": metadata["model"],
        "cost_model": metadata["cost_model"]["name"],
        "overlap": metadata["overlap"],
        "density": metadata["density"],
        "prefix_sharing": dict(metadata["prefix_sharing"]),
        "predicted": {name: metadata["predicted"][name] for name in _PREDICTED},
        "bound_s": metadata["bound_s"],
        "bound_ratio": metadata["bound_ratio"],
        # `blend` is a plain order where simulation finds nothing better.
        "order": metadata["policy_parameters"].get("order", metadata["policy"]),
    }
