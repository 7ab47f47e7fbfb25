"""`FieldTable`: what an engine's server takes as the value of each field, by a table."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from blendplan.engines.screening.bodies import CHAT, COMPLETION, Body
from blendplan.printable import show

INVALID_FIELD = "invalid_field"
# Of these, rules say all that there is to say.
_BY_RULES = ("prompt", "messages")
_SECTIONS = {CHAT: "chat", COMPLETION: "completion"}
_TRUE_OR_FALSE = ("0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes")


class Verdict(NamedTuple):
    """What a server does with a request.

    Attributes:
        message: why it refuses it; None where it takes it.
        code: the reason as one word.
        status: HTTP status of the refusal.
    """

    message: str | None = None
    code: str = ""
    status: int = 200

    @property
    def refuses(self) -> bool:
        """Whether the request gets no answer."""
        return self.message is not None


TAKEN = Verdict()


def refused(message: str, code: str = INVALID_FIELD, status: int = 400) -> Verdict:
    """The verdict on a request that gets no answer."""
    return Verdict(message, code, status)


def refused_field(field: str, message: str, status: int = 400) -> Verdict:
    """The refusal for what a field says; requests are counted by field."""
    return refused(message, f"{INVALID_FIELD}:{field}", status)


@dataclass(frozen=True)
class Field:
    """What a field may hold; see the head of ``vllm.toml``."""

    type: str
    does: str = "used"
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    items: int | None = None
    full: bool = False
    longest: int | None = None

    def wrong(self, value: object) -> str | None:
        """What is wrong with a value, in a few words; None where nothing is."""
        if value is None:
            return None if {"null", "checked"} & set(self.type.split("|")) else "null"
        for kind in self.type.split("|"):
            if kind == "checked":
                return None
            read = _READERS[kind](value)
            if read is not None:
                return self._out_of_range(read, show(value))
        return f"{show(value)}, expected {self.type.replace('|', ' or ')}"

    def _out_of_range(self, read: Any, shown: str) -> str | None:
        if isinstance(read, int | float) and not isinstance(read, bool):
            if self.least is not None and read < self.least:
                return f"{shown}, at least {self.least:g} is taken"
            if self.most is not None and read > self.most:
                return f"{shown}, at most {self.most:g} is taken"
            if self.above is not None and not read > self.above:
                return f"{shown}, more than {self.above:g} is taken"
            if self.below is not None and not read < self.below:
                return f"{shown}, less than {self.below:g} is taken"
        if self.choices and read not in self.choices:
            return f"{shown}, known are {', '.join(self.choices)}"
        if self.items is not None and isinstance(read, list) and len(read) > self.items:
            return f"a list of {len(read)}, at most {self.items} are taken"
        texts = read if isinstance(read, list) else [read]
        if self.full and "" in texts:
            return "an empty text"
        if self.longest is not None and isinstance(read, str) and len(read) > self.longest:
            return f"a text of {len(read)} characters, at most {self.longest} are taken"
        return None


@dataclass(frozen=True)
class FieldTable:
    """Fields that an engine's server knows.

    Attributes:
        title: the engine's name.
        package: the Python package that it is installed as.
        versions: beginnings of the versions that the table was checked against.
        fields: by endpoint and name.
        renamed: its name for what other tools name otherwise.
    """

    title: str
    package: str
    versions: tuple[str, ...]
    fields: Mapping[str, Mapping[str, Field]]
    renamed: Mapping[str, str]

    def unknown(self, body: Body) -> list[str]:
        """Fields that the server passes over, since it knows none of that name."""
        known = self.fields.get(body.url)
        return [] if known is None else [name for name in body.fields if name not in known]

    def unsure(self, body: Body) -> bool:
        """Whether it holds something that only the engine's own code can judge."""
        known = self.fields.get(body.url)
        return known is None or any(
            field.type == "checked" and name not in _BY_RULES
            for name, value in body.fields.items()
            if value is not None and (field := known.get(name)) is not None
        )

    def judge(self, body: Body) -> Verdict:
        """The first field whose value is not taken, else `TAKEN`."""
        known = self.fields.get(body.url)
        if known is None:
            return TAKEN
        for name, value in body.fields.items():
            field = known.get(name)
            wrong = None if field is None else field.wrong(value)
            if wrong is not None:
                return refused_field(name, f'"{name}" is {wrong}')
        return TAKEN


@cache
def table_of(engine: str) -> FieldTable:
    """The table of an engine; there must be one."""
    text = files(__package__).joinpath(f"{engine}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    both = table.get("both", {})
    fields = {}
    for url, section in _SECTIONS.items():
        stated = both | table.get(section, {})
        fields[url] = {name: _field(entry) for name, entry in stated.items()}
    engine_table = table["engine"]
    return FieldTable(
        engine_table["title"],
        engine_table["package"],
        tuple(engine_table["versions"]),
        fields,
        table.get("renamed", {}),
    )


def _field(entry: Mapping[str, Any]) -> Field:
    return Field(**{**entry, "choices": tuple(entry.get("choices", ()))})


def as_integer(value: object) -> int | None:
    """A whole number as pydantic reads one: also of a text, and of a number without a fraction."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        number = _number_in(value)
        return int(number) if number is not None and number.is_integer() else None
    return None


def as_number(value: object) -> float | None:
    """A number as pydantic reads one: also of a text."""
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    return _number_in(value) if isinstance(value, str) else None


def as_flag(value: object) -> bool | None:
    """True or false as pydantic reads them: also 0 and 1, and words such as "yes"."""
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str) and value.lower() in _TRUE_OR_FALSE:
        return _TRUE_OR_FALSE.index(value.lower()) >= len(_TRUE_OR_FALSE) // 2
    return None


def _number_in(text: str) -> float | None:
    try:
        return float(text) if len(text) < 100 else None
    except ValueError:
        return None


def _strict_integer(value: object) -> int | None:
    return None if isinstance(value, str) else as_integer(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> list[Any] | None:
    return value if isinstance(value, list) else None


def _list_of(read: Callable[[object], Any]) -> Callable[[object], list[Any] | None]:
    def read_all(value: object) -> list[Any] | None:
        if not isinstance(value, list):
            return None
        items = [read(item) for item in value]
        return None if any(item is None for item in items) else items

    return read_all


def _object(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _object_of(read: Callable[[object], Any]) -> Callable[[object], dict[str, Any] | None]:
    def read_all(value: object) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        return None if any(read(item) is None for item in value.values()) else value

    return read_all


_READERS: Mapping[str, Callable[[object], Any]] = {
    "null": lambda value: None,
    "integer": as_integer,
    "strict integer": _strict_integer,
    "number": as_number,
    "flag": as_flag,
    "text": _text,
    "list": _list,
    "object": _object,
    "integers": _list_of(as_integer),
    "texts": _list_of(_text),
    "numbers by text": _object_of(as_number),
    "texts by text in list": _list_of(_object_of(_text)),
}
