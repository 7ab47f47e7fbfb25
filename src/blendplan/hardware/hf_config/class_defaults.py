"""What the classes of published models take for fields that a file leaves out.

Of language models (``class_defaults.json``), and of encoders of images and sound
(``encoder_defaults.json``): sizes that transformers 5.19's configuration classes have.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def _all(file: str) -> Mapping[str, Mapping[str, Any]]:
    text = resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def class_defaults(model_type: str) -> Mapping[str, Any]:
    """Defaults of a model type, by field; empty where it is not known."""
    return _all("class_defaults.json").get(model_type, {})


def encoder_defaults(model_type: str) -> Mapping[str, Any]:
    """Sizes of an encoder of that type, by field; empty where it is not known."""
    known = _all("encoder_defaults.json")
    return known.get(model_type) or known.get(f"{model_type}_vision", {})
