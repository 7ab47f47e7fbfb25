"""Requests whose prompt stands under another name: `--prompt-column`."""

from collections.abc import Mapping
from typing import Any

from blendplan.printable import show
from blendplan.requests.bad import BadRecordError

PROMPT_FIELDS = ("prompt_token_ids", "prompt", "messages", "body")


def with_prompt(fields: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """A line whose field `column` stands under the name that its value calls for.

    A text becomes "prompt", a list of messages "messages", a list of token ids "prompt_token_ids".
    A line that has a prompt by one of these names, or a body, and no field `column` stays as it is.

    Raises:
        BadRecordError: there is no such field, or a prompt besides it.
    """
    stated = [name for name in PROMPT_FIELDS if fields.get(name) is not None]
    if column in stated:
        return fields
    value = fields.get(column)
    if value is None:
        if stated:
            return fields
        names = ", ".join(show(name) for name in fields)[:80] or "none"
        raise BadRecordError(
            f"no field {show(column)}, which is to hold the prompt; it has {names}"
        )
    if stated:
        raise BadRecordError(f"both {show(column)} and {show(stated[0])}; leave one of them out")
    others = {name: item for name, item in fields.items() if name != column}
    return {prompt_field(value): value, **others}


def prompt_field(value: object) -> str:
    """The name under which a prompt is read, by what it is."""
    if isinstance(value, list) and value:
        if isinstance(value[0], dict):
            return "messages"
        if isinstance(value[0], int):
            return "prompt_token_ids"
    return "prompt"
