"""What stands beside an answer in a table of results: the id, and the columns of the source."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from blendplan.requests.bad import BadRecordError
from blendplan.requests.endpoints import REPEATS, SOURCE_COLUMNS
from blendplan.requests.output_table import ANSWER, ID
from blendplan.requests.record import parse_line
from blendplan.requests.source_columns import restored, restored_type

_LOOKED_AT = 4096
_INT64 = 1 << 63
# Of a batch line, what is no more than the request itself.
_REQUEST = frozenset(["custom_id", "method", "url", "body", REPEATS])


class NamedLine(NamedTuple):
    """A request as its result sees it: its id as it came, and its own JSON, None for none."""

    id: str | int
    line: bytes | None


def has_numbers_as_ids(columns: pa.Schema | None) -> bool:
    """Whether the ids of a table are whole numbers."""
    if columns is None:
        return False
    names = [name for name in (ID, "id") if name in columns.names]
    return bool(names) and pa.types.is_integer(columns.field(names[0]).type)


def as_number(name: str | int) -> str | int:
    """An id as the whole number that it is written as, where it is one."""
    is_number = isinstance(name, str) and name.removeprefix("-").isdecimal() and len(name) < 20
    return int(name) if is_number and str(int(name)) == name else name


def source_fields(line: bytes | None) -> Mapping[str, Any]:
    """What a request's line holds of its source.

    That is what was carried beside it; else all fields of a plain line but token ids, and those
    that a batch line has around its body. A field that is the id is left out, which stands there
    anyway.
    """
    if line is None:
        return {}
    try:
        fields = parse_line(line)
    except BadRecordError:  # which its result says
        return {}
    carried = fields.get(SOURCE_COLUMNS)
    if isinstance(carried, dict):
        same = carried.get("custom_id") == fields.get("custom_id")
        return {name: one for name, one in carried.items() if not (same and name == ID)}
    if fields.get("body") is None:
        left_out = frozenset(["custom_id", "prompt_token_ids", SOURCE_COLUMNS, REPEATS])
    else:
        left_out = _REQUEST
    return {name: value for name, value in fields.items() if name not in left_out}


@dataclass
class _Seen:
    """What the values of a column have been."""

    kinds: set[str] = field(default_factory=set)
    stated: pa.DataType | None = None

    @property
    def type(self) -> pa.DataType | None:
        """The type of the column, None for one that holds JSON."""
        if self.stated is not None:
            return self.stated
        kinds = frozenset(self.kinds)
        if kinds <= {"int", "float"} and kinds:
            return pa.float64() if "float" in kinds else pa.int64()
        return {
            frozenset(): pa.null(),
            frozenset(["bool"]): pa.bool_(),
            frozenset(["text"]): pa.string(),
        }.get(kinds)


@dataclass(frozen=True)
class Beside:
    """How ids and source columns become columns.

    Attributes:
        id_type: of the ids.
        types: of each column by the name that it has in the source; None for one that holds JSON.
    """

    id_type: pa.DataType
    types: Mapping[str, pa.DataType | None]

    @property
    def fields(self) -> list[pa.Field]:
        """The source columns as they stand in the table of results.

        One by the name of an answer's is called ``source_`` and its name.
        """
        taken = {ID, *ANSWER.names, *self.types}
        fields = []
        for name, kind in self.types.items():
            new = name
            while new in ANSWER.names or new == ID or (new != name and new in taken):
                new = f"source_{new}"
            taken.add(new)
            fields.append(pa.field(new, pa.string() if kind is None else kind))
        return fields

    def ids(self, requests: Sequence[NamedLine]) -> pa.Array:
        """The ids of some requests."""
        if self.id_type == pa.int64():
            return pa.array([int(request.id) for request in requests], self.id_type)
        return pa.array([str(request.id) for request in requests], self.id_type)

    def columns(self, requests: Sequence[NamedLine]) -> list[pa.Array]:
        """The source columns of some requests, in the order of `fields`."""
        rows = [source_fields(request.line) for request in requests]
        return [
            _as_json([row.get(name) for row in rows])
            if kind is None
            else restored([row.get(name) for row in rows], kind)
            for name, kind in self.types.items()
        ]


def beside_of(requests: Iterable[NamedLine], declared: pa.Schema | None) -> Beside:
    """Look through all requests for what stands beside their answers.

    Args:
        requests: all of them.
        declared: the columns of the table that they came from, None where that is not known.
    """
    seen: dict[str, _Seen] = {}
    for column in declared or ():
        seen[column.name] = _Seen(stated=restored_type(column.type))
    unseen = set(seen)
    numbers = True
    left = iter(requests)
    while some := list(islice(left, _LOOKED_AT)):
        numbers = numbers and all(_is_number(request.id) for request in some)
        rows = [source_fields(request.line) for request in some]
        for name in dict.fromkeys(name for row in rows for name in row):
            unseen.discard(name)
            _look(seen.setdefault(name, _Seen()), [row.get(name) for row in rows])
    for name in unseen & {ID}:  # stands there anyway
        del seen[name]
    return Beside(
        pa.int64() if numbers else pa.string(), {name: one.type for name, one in seen.items()}
    )


def _look(column: _Seen, values: list[Any]) -> None:
    if column.stated is not None:
        try:
            restored(values, column.stated)
            return
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            column.stated = None  # another file's, or not as it was carried
            column.kinds.add("json")
    column.kinds.update(_kind(value) for value in values if value is not None)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_INT64 <= value < _INT64 else "json"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) and _is_utf8(value) else "json"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _is_number(name: str | int) -> bool:
    return isinstance(name, int) and -_INT64 <= name < _INT64


def _as_json(values: Sequence[Any]) -> pa.Array:
    texts = [None if value is None else json.dumps(value, ensure_ascii=True) for value in values]
    return pa.array(texts, pa.string())
