"""Fill in the table of models in docs/models.md.

python benchmarks/model_page.py docs/models.md
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.published_models import PUBLISHED

from blendplan.hardware.lookup import model_names, model_spec
from blendplan.report.models import model_values

MARKS = ("<!-- models -->", "<!-- end models -->")
HEAD = (
    "| model | layers | groups of the KV cache | KV at 1,000 | 10,000 | 100,000 tokens "
    "| parameters | published | active | published |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
)


def fill_models(page: Path, _results: Path | None = None) -> None:
    """Write the table between its marks."""
    text = page.read_text(encoding="utf-8")
    inside = re.compile(f"({MARKS[0]}\n).*({MARKS[1]})", re.DOTALL)
    table = "\n".join((*HEAD, *map(_row, model_names()))) + "\n"
    page.write_text(inside.sub(lambda found: found[1] + table + found[2], text), encoding="utf-8")


def _row(name: str) -> str:
    values = model_values(model_spec(name))
    stated = PUBLISHED.get(name)
    layers = ", ".join(f"{count} {kind}" for kind, count in values["layers"].items())
    cells = [
        f"`{name}`",
        layers,
        _groups(values["kv_groups"]),
        *(_size(size) for size in values["kv_bytes"].values()),
        f"{values['parameters'] / 1e9:.2f} B",
        f"{stated.total} B" if stated and stated.total else "",
        f"{values['active_parameters'] / 1e9:.2f} B",
        f"{stated.active} B" if stated and stated.active else "",
    ]
    return f"| {' | '.join(cells)} |"


def _groups(groups: list[Mapping[str, Any]]) -> str:
    words: dict[str, list[str]] = {}
    for group in groups:
        words.setdefault(group["kind"], []).append(str(group["layers"]))
    return "; ".join(f"{kind} of {', '.join(sizes)}" for kind, sizes in words.items())


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


if __name__ == "__main__":
    fill_models(Path(sys.argv[1]))
