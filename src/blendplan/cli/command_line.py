"""`plan_command`: a ``blendplan plan`` command line that says what another command was told."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click

# Options of `plan` that other commands have in another sense, or that a printed command chooses.
_OTHERS = ("output", "processes", "within_s", "chance", "as_json", "quiet")


def plan_command(ctx: click.Context, settings: Mapping[str, Any], output: str) -> str:
    """The command line, quoted for a shell.

    Args:
        ctx: of the command that was told.
        settings: values that take the place of what it was told, by the names of the options.
        output: where the plan is to go.
    """
    from blendplan.cli.plan import command as plan

    words = ["blendplan", "plan"]
    for param in plan.params:
        if param.name is None or param.name in _OTHERS or param.name not in ctx.params:
            continue
        value = settings.get(param.name, ctx.params[param.name])
        if isinstance(param, click.Argument):
            words += [str(word) for word in ([value] if isinstance(value, str) else value)]
        elif isinstance(param, click.Option) and (param.required or value != param.default):
            words += _spelled(param, value)
    return shlex.join([*words, "-o", output])


def _spelled(option: click.Option, value: Any) -> Iterator[str]:
    """An option with its value as words."""
    name = max(option.opts, key=len)
    if option.secondary_opts:
        yield name if value else option.secondary_opts[0]
    elif option.is_flag:
        if value == option.flag_value:
            yield name
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (name, f"{key}={item if isinstance(item, str) else json.dumps(item)}")
    elif option.multiple:
        for item in value:
            yield from (name, str(item))
    elif value is not None:
        yield from (name, str(value))
