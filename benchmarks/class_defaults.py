"""Write what transformers' configuration classes take for fields that a file leaves out.

    python benchmarks/class_defaults.py > src/blendplan/hardware/hf_config/class_defaults.json

Only fields that the reader of configs asks for, of classes of decoders. Facts of transformers,
which is under the Apache License 2.0.
"""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "src" / "blendplan" / "hardware"
TEXTS = ("_act", "activation", "activation_function")


def asked_for() -> set[str]:
    """Every name that stands in the reader's source as a text; a superset does no harm."""
    texts = [path.read_text(encoding="utf-8") for path in (FOLDER / "hf_config").glob("*.py")]
    texts.append((FOLDER / "context.py").read_text(encoding="utf-8"))
    return set(re.findall(r'"([A-Za-z_]\w+)"', "\n".join(texts)))


def defaults_of(kind: type, names: set[str]) -> dict[str, Any]:
    """Fields of a class with a plain value, under the name in files."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("transformers.models"):
            continue
        for name in getattr(base, "__annotations__", {}):
            value = getattr(kind, name, None)
            plain = isinstance(value, bool | int) or (
                isinstance(value, str)
                and name.endswith(("_act", "activation", "activation_function"))
            )
            if plain and name in names:
                found[name] = value
    return found


def tables() -> dict[str, dict[str, Any]]:
    """Defaults by model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = asked_for()
    made = {}
    for model_type in sorted(CONFIG_MAPPING):
        if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not model_type.endswith("_text"):
            continue
        kind = CONFIG_MAPPING[model_type]
        if hasattr(kind, "vocab_size"):
            made[model_type] = defaults_of(kind, names)
    return made


if __name__ == "__main__":
    rows = (f"{json.dumps(name)}: {json.dumps(table)}" for name, table in tables().items())
    print("{\n" + ",\n".join(rows) + "\n}")
