"""`key_values`: ``NAME=VALUE`` words of a command line as a dictionary."""

import json
from typing import Any

import click


def key_values(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> dict[str, Any]:
    """The words of an option by their names; a value that is not JSON is taken as text.

    Raises:
        BadParameter: a word that is no such pair, or a name that is there twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name.isidentifier() or not equals:
            raise click.BadParameter(f"{word!r} is not {param.metavar}", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
        except RecursionError:
            raise click.BadParameter(f"{name} is nested too deeply", ctx, param) from None
    return found
