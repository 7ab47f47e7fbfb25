"""``--json`` and ``--quiet``: where a command's answer and its remarks go."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from blendplan.printable import printable, printable_values

if TYPE_CHECKING:
    from rich.console import RenderableType

    Draw = Callable[[Mapping[str, Any]], RenderableType]

# Width of a table that goes into a file or a pipe, where there is no terminal to ask.
_FILE_WIDTH = 120
_LEAST_WIDTH = 80


@dataclass(frozen=True)
class Answer:
    """How to answer: as one JSON object or for people, with or without remarks."""

    as_json: bool
    quiet: bool

    def give(self, values: Mapping[str, Any], *draw: "Draw") -> None:
        """Write the answer to standard output: `values` under ``--json``, else what `draw` returns.

        These are functions of the values so that nothing is drawn, and rich is not imported, in
        vain. They get the values with every text safe for a terminal; JSON escapes by itself.
        """
        if self.as_json:
            text = json.dumps(_finite(values), allow_nan=False, ensure_ascii=False)
            click.echo(text if text.isprintable() else "".join(map(_json_char, text)))
            return
        from rich.console import Console

        # A terminal that lacks a character shows a question mark, not a traceback.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        console = Console(markup=False, emoji=False, highlight=False, width=_FILE_WIDTH)
        if sys.stdout.isatty():
            # On a terminal that is narrower still lines wrap; cut-off numbers would be worse.
            console.width = max(_LEAST_WIDTH, Console().width)
        shown = printable_values(values)
        for picture in draw:
            console.print(picture(shown))

    def tell(self, values: Mapping[str, Any], *draw: "Draw") -> None:
        """`give` for a command whose result is a file: silent under ``--quiet``."""
        if self.as_json or not self.quiet:
            self.give(values, *draw)

    def remark(self, line: str) -> None:
        """A line on standard error, unless ``--quiet``."""
        if not self.quiet:
            click.echo(printable(line), err=True)


def answering(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--json`` and ``--quiet`` to a command; it gets them as ``answer``."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress bars and no remarks.")
    @wraps(function)
    def command(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> None:
        function(*args, answer=Answer(as_json, quiet), **kwargs)

    return command


def _finite(value: Any) -> Any:
    """The value with infinities and not-a-numbers as strings: JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _json_char(char: str) -> str:
    """A character of a JSON text; what a terminal would obey stands there as JSON's own escape."""
    return char if char.isprintable() else json.dumps(char)[1:-1]


_PREDICTED = (
    "makespan_s",
    "makespan_quantiles_s",
    "throughput_tokens_per_s",
    "steps",
    "preemptions",
)

_SOMETIMES = ("window", "coverage", "tail")


def headline(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that scripts may rely on, out of a plan's metadata."""
    return {
        "requests": metadata["requests"],
        **({"sequences": metadata["sequences"]} if "sequences" in metadata else {}),
        **{name: dict(metadata[name]) for name in _SOMETIMES if name in metadata},
        "policy": metadata["policy"],
        "gpu": metadata["gpu"],
        "tp": metadata["tp"],
        "replicas": metadata["replicas"],
        "model": metadata["model"],
        "cost_model": metadata["cost_model"]["name"],
        "overlap": metadata["overlap"],
        "density": metadata["density"],
        "prefix_sharing": dict(metadata["prefix_sharing"]),
        "predicted": {
            name: metadata["predicted"][name]
            for name in _PREDICTED
            if name in metadata["predicted"]
        },
        "bound_s": metadata["bound_s"],
        "bound_ratio": metadata["bound_ratio"],
        "replan": metadata["replan"],
        # `blend` is a plain order where simulation finds nothing better.
        "order": metadata["policy_parameters"].get("order", metadata["policy"]),
        "burst_steps": metadata["policy_parameters"].get("burst_steps", 1),
    }
