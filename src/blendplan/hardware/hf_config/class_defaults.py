"""What the classes of published models take for fields that a file leaves out."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def _all() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files(__package__).joinpath("class_defaults.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def class_defaults(model_type: str) -> Mapping[str, Any]:
    """Defaults of a model type, by field; empty where it is not known."""
    return _all().get(model_type, {})
