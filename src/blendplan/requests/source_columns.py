"""Columns of a table that are no business of an engine: carried as JSON, and brought back.

They ride with the line of each request (`SOURCE_COLUMNS`), through the plan, to its answer. The
schema of the table goes with them, so that they come back with the types that they had.
"""

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from blendplan.errors import BlendplanError

_Types = pa.types


def carried_values(column: pa.Array) -> list[Any]:
    """The values of a column as JSON has them, None for a null; see `restored`."""
    kind = column.type
    if _Types.is_dictionary(kind):
        return carried_values(column.cast(kind.value_type))
    if _is_native(kind):
        return [_finite(value) for value in column.to_pylist()]
    if _Types.is_time(kind):  # which Arrow does not read from text
        ticks: list[Any] = column.cast(_ticks(kind)).to_pylist()
        return ticks
    if _is_text_of(kind):
        texts: list[Any] = column.cast(pa.string()).to_pylist()
        return texts
    values = plain_values(column)
    if _is_bytes(kind):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    return [None if value is None else json.dumps(value, default=str) for value in values]


def restored_type(kind: pa.DataType) -> pa.DataType:
    """The type with which values of a type come back: itself, or text where JSON is all there is.

    Codes of a dictionary come back as what they stand for.
    """
    if _Types.is_dictionary(kind):
        return restored_type(kind.value_type)
    known = (_is_native, _is_text_of, _is_bytes, _Types.is_time)
    return kind if any(knows(kind) for knows in known) else pa.string()


def type_in_lines(kind: pa.DataType) -> pa.DataType:
    """The type by which values come back that were never carried but stand in a line themselves.

    Bytes and times stand there as text.
    """
    return pa.string() if _is_bytes(kind) or _Types.is_time(kind) else kind


def restored(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Carried values as a column of a type that `restored_type` gives.

    Raises:
        pa.ArrowException, ValueError, TypeError: the values are of another type.
    """
    if _Types.is_time(kind):
        return pa.array(values, _ticks(kind)).cast(kind)
    if _is_text_of(kind):
        return pa.array(values, pa.string()).cast(kind)
    if _is_bytes(kind):
        decoded = [None if value is None else base64.b64decode(value) for value in values]
        return pa.array(decoded, kind)
    if _holds_floats(kind):
        values = [_with_floats(value, kind) for value in values]
    return pa.array(values, kind)


def joined_columns(schemas: Sequence[pa.Schema | None]) -> pa.Schema | None:
    """The columns of several files; None where there are none, or one has two types."""
    stated = [schema for schema in schemas if schema is not None]
    if not stated:
        return None
    try:
        return pa.unify_schemas([schema.remove_metadata() for schema in stated])
    except pa.ArrowException:
        return None


def schema_text(schema: pa.Schema) -> str:
    """A schema as text, as a plan's metadata have it."""
    plain = pa.schema([field.remove_metadata() for field in schema])
    return base64.b64encode(plain.serialize().to_pybytes()).decode()


def schema_of_text(text: object) -> pa.Schema:
    """The schema in a plan's metadata.

    Raises:
        BlendplanError: it is none.
    """
    try:
        if not isinstance(text, str):
            raise ValueError
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True)))
    except (ValueError, pa.ArrowException, OSError):
        raise BlendplanError("source_columns is no schema of a table; plan again") from None


def _is_native(kind: pa.DataType) -> bool:
    """Whether JSON has the values of a type as they are, numbers that are none aside."""
    if _is_list(kind):
        return _is_native(kind.value_type)
    if _Types.is_struct(kind):
        return all(_is_native(kind.field(place).type) for place in range(kind.num_fields))
    return (
        _Types.is_boolean(kind)
        or _Types.is_integer(kind)
        or _Types.is_string(kind)
        or _Types.is_large_string(kind)
        or _Types.is_null(kind)
        or _is_float(kind)
    )


def _is_float(kind: pa.DataType) -> bool:
    return _Types.is_float32(kind) or _Types.is_float64(kind)


def _is_list(kind: pa.DataType) -> bool:
    return _Types.is_list(kind) or _Types.is_large_list(kind) or _Types.is_fixed_size_list(kind)


def _is_text_of(kind: pa.DataType) -> bool:
    """Whether Arrow writes values of a type as text and reads them back."""
    return (
        _Types.is_date(kind)
        or (_Types.is_timestamp(kind) and kind.tz in (None, "UTC"))
        or _Types.is_decimal128(kind)
    )


def _ticks(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if _Types.is_time64(kind) else pa.int32()


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        _Types.is_binary(kind) or _Types.is_large_binary(kind) or _Types.is_fixed_size_binary(kind)
    )


def plain_values(column: pa.Array) -> list[Any]:
    """Values of a column; as text where Python has no such type, null where they have no text.

    Times in nanoseconds, for example, are nothing that a request is planned by.
    """
    try:
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError, TypeError, ImportError):
        try:
            values = column.cast(pa.string()).to_pylist()
        except (pa.ArrowException, ValueError):
            values = [None] * len(column)
    return values


def _finite(value: Any) -> Any:
    """A value with texts in place of the numbers that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value


def _holds_floats(kind: pa.DataType) -> bool:
    if _is_list(kind):
        return _holds_floats(kind.value_type)
    if _Types.is_struct(kind):
        return any(_holds_floats(kind.field(place).type) for place in range(kind.num_fields))
    return _is_float(kind)


def _with_floats(value: Any, kind: pa.DataType) -> Any:
    """A value with the numbers for which `_finite` has put texts."""
    if isinstance(value, str) and _is_float(kind):
        return float(value)
    if isinstance(value, list) and _is_list(kind):
        return [_with_floats(item, kind.value_type) for item in value]
    if isinstance(value, dict) and _Types.is_struct(kind):
        named = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        return {
            name: _with_floats(item, named[name]) if name in named else item
            for name, item in value.items()
        }
    return value
