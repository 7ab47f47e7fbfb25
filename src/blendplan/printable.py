"""Text that may stand in a one-line message or on a terminal, whoever wrote it.

Names of columns, requests, models and files come from outside. A control character in one moves
the cursor or hides text, a line end forges a line of its own, and a mark of writing direction
turns what follows around; all are shown as escapes instead.
"""

import json
import unicodedata
from typing import Any


def printable(text: str) -> str:
    """`text` with everything that is not seen as itself written as an escape.

    >>> printable("name\\x1b[31m\\n")
    'name\\\\x1b[31m\\\\n'
    """
    if text.isprintable():
        return text
    return "".join(char if _is_seen(char) else _escaped(char) for char in text)


def printable_values(value: Any) -> Any:
    """JSON values with every text in them, keys too, made `printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_values(key): printable_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(item) for item in value]
    return value


def show(value: object, width: int = 40) -> str:
    """`value` as it may stand in a one-line message: as JSON, shortened, printable."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        text = json.dumps(value[:width], ensure_ascii=not value[:width].isprintable())
        return f'{text[:-1]}..."' if len(value) > width else text
    if value is None or isinstance(value, bool | int | float):
        try:
            text = json.dumps(value)
        except ValueError:  # more digits than Python writes out
            return "a number of thousands of digits"
        return f"{text[:width]}..." if len(text) > width else text
    return f"a {type(value).__name__}"


def _is_seen(char: str) -> bool:
    # Spaces of other widths, as in Japanese names, are seen.
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
