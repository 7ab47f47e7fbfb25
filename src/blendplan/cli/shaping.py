"""Options of what is read: how rows of data become requests, and how many of them there are."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from blendplan.cli.key_values import key_values
from blendplan.cli.ranges import within
from blendplan.errors import BlendplanError

_SHAPING = (
    click.option(
        "--prompt-column",
        metavar="NAME",
        help="Field or column that holds the prompts, where its name is none of prompt, messages, "
        "prompt_token_ids and body; other columns do not reach the engine.",
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help="Prompt of each row, with columns in braces: 'Translate to French: {text}'.",
    ),
    click.option(
        "--system",
        metavar="TEXT",
        help="System message of requests that have none; makes chats of texts.",
    ),
    click.option(
        "--chat",
        is_flag=True,
        help="Ask with a text as a user's message, in the model's chat template, instead of having "
        "it continued.",
    ),
    click.option("--id-column", metavar="NAME", help="Field or column that holds the ids."),
    click.option(
        "--max-tokens",
        type=within("max_tokens"),
        metavar="N",
        help="Most output tokens of requests that do not say.",
    ),
    click.option(
        "--param",
        "parameters",
        multiple=True,
        callback=key_values,
        metavar="NAME=VALUE",
        help="Parameter of requests that do not state it, such as temperature=0.7. May be given "
        "several times.",
    ),
    click.option(
        "--limit",
        type=within("limit"),
        metavar="N",
        help="Look at the first N lines or rows only.",
    ),
)
_NAMES = ("prompt_column", "template", "system", "chat", "id_column", "max_tokens", "parameters")


def shaping(function: Callable[..., None]) -> Callable[..., None]:
    """Add these options to a command that reads requests; it gets them as ``shape``."""

    @wraps(function)
    def with_shape(*args: Any, **options: Any) -> None:
        given = {name: options.pop(name) for name in _NAMES}
        limit = options.pop("limit")
        few = {} if limit is None else {"limit": limit}
        function(*args, shape=_stated(given) | few, **options)

    command: Callable[..., None] = with_shape
    for option in reversed(_SHAPING):
        command = option(command)
    return command


def _stated(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, as keyword arguments of `read_requests`.

    Raises:
        click.UsageError: it cannot be.
    """
    stated = {name: value for name, value in given.items() if value not in (None, False, {})}
    if stated:  # `Shape` imports numpy, which a command without these options need not wait for
        from blendplan.requests.shape import Shape

        try:
            Shape.of("read_requests", stated)
        except BlendplanError as error:
            raise click.UsageError(str(error)) from None
    return stated
