"""`Template`: a prompt with columns in its places, ``Translate to French: {text}``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.bad import BadRecordError

_LITERAL = "write {{ and }} for braces themselves"


@dataclass(frozen=True)
class Template:
    """Literal texts and the columns between them.

    A field is the name of a column and nothing else: there is no code, no attribute and no index,
    so that ``{text.__class__}`` asks for a column of that very name.

    Attributes:
        text: as it was given.
        parts: literal text, and the column that follows it, None at the end.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, text: str) -> "Template":
        """Read a template.

        Raises:
            BlendplanError: unbalanced braces, a field without a name, one with a conversion or a
                format, or no field at all.
        """
        parts: list[tuple[str, str | None]] = []
        try:
            for literal, name, form, conversion in Formatter().parse(text):
                if name == "":
                    raise BlendplanError(
                        f"template {show(text, 60)} has a field without a name; give the name of "
                        f"a column, as in {{text}}; {_LITERAL}"
                    )
                if name is not None and (form or conversion):
                    raise BlendplanError(
                        f"template {show(text, 60)}: the field {show(name)} has a format or a "
                        f"conversion; give the name of a column alone; {_LITERAL}"
                    )
                parts.append((literal, name))
        except ValueError as error:
            if isinstance(error, BlendplanError):
                raise
            raise BlendplanError(
                f"template {show(text, 60)} cannot be read ({str(error).lower()}); {_LITERAL}"
            ) from None
        if all(name is None for _, name in parts):
            raise BlendplanError(
                f"template {show(text, 60)} names no column, so that all prompts would be the "
                "same; put one in braces, as in {text}"
            )
        return cls(text, tuple(parts))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, each once."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None))

    def filled(self, row: Mapping[str, Any]) -> str:
        """The prompt of a row.

        Texts stand as they are, numbers as Python writes them, lists and objects as JSON.

        Raises:
            BadRecordError: the row has no value for a column.
        """
        pieces = []
        for literal, name in self.parts:
            pieces.append(literal)
            if name is not None:
                pieces.append(_written(name, row))
        return "".join(pieces)


def _written(name: str, row: Mapping[str, Any]) -> str:
    value = row.get(name)
    if value is None:
        raise BadRecordError(
            f"no value in {show(name)}, which the template names; fill it in or leave the row out"
        )
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        raise BadRecordError(f"{show(name)}, which the template names, holds bytes, not a text")
    return str(value)
