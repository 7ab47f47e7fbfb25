"""The options that `replay` and `sample` share: which engine runs the requests, and how."""

import json
from collections.abc import Callable
from typing import Any

import click

from blendplan.cli.names import Name
from blendplan.cli.options import FILE
from blendplan.cli.ranges import within

# Written down here because `blendplan.engines` takes too long to import for `--help`.
ENGINES = ("sim", "vllm", "sglang")


def _engine_args(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> dict[str, Any]:
    """``KEY=VALUE`` words as a dictionary; a value that is not JSON is taken as text."""
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name.isidentifier() or not equals:
            raise click.BadParameter(f"{word!r} is not KEY=VALUE", ctx, param)
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
        except RecursionError:
            raise click.BadParameter(f"{name} is nested too deeply", ctx, param) from None
    return arguments


_OPTIONS = (
    click.option(
        "--model",
        metavar="NAME",
        help="Model to load, by its Hugging Face name or folder.  [default: that of the plan]",
    ),
    click.option(
        "--engine-arg",
        "engine_args",
        multiple=True,
        callback=_engine_args,
        metavar="KEY=VALUE",
        help="Argument of the engine by its own name, the value as JSON; wins over the plan's. "
        "Give it as often as you like.",
    ),
    click.option(
        "--order",
        default="input",
        show_default=True,
        type=Name("order of results", ("input", "finish")),
        metavar="input|finish",
        help="Order of the results: of the request file, at the end, or as they come.",
    ),
    click.option("--resume", is_flag=True, help="Continue an interrupted run."),
    click.option(
        "--retries",
        default=2,
        show_default=True,
        type=within("retries"),
        metavar="N",
        help="Further attempts of a request that failed.",
    ),
    click.option("--pdmux", is_flag=True, help="SGLang: share the GPU between prefill and decode."),
    click.option("--step-log", type=FILE, metavar="FILE", help="Log every step (Parquet)."),
    click.option("--request-log", type=FILE, metavar="FILE", help="Log every request (Parquet)."),
)


def engine_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add them to a command, by the names of `blendplan.engines.replay`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
