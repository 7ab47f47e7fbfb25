"""Columns that are carried as JSON come back as they were."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.requests.source_columns import (
    carried_values,
    joined_columns,
    restored,
    restored_type,
    schema_of_text,
    schema_text,
)

FLOATS = st.floats(width=32)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1))
NESTED = pa.struct([("a", pa.list_(pa.float64())), ("b", pa.string()), ("c", pa.int8())])
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float32(), FLOATS),
    (pa.float64(), st.floats()),
    (pa.string(), TEXTS),
    (pa.large_string(), TEXTS),
    (pa.binary(), st.binary()),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.date32(), st.dates(date(1, 1, 1))),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "UTC"), MOMENTS.map(lambda one: one.replace(tzinfo=UTC))),
    (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    (pa.decimal128(10, 3), st.decimals(-1000, 1000, places=3)),
    (pa.list_(pa.float32()), st.lists(FLOATS | st.none())),
    (pa.list_(pa.list_(pa.int64())), st.lists(st.lists(st.integers(-(2**63), 2**63 - 1)))),
    (
        NESTED,
        st.fixed_dictionaries(
            {"a": st.none() | st.lists(st.floats()), "b": st.none() | TEXTS, "c": st.none()}
        ),
    ),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=[str(kind) for kind, _ in KINDS])
@settings(max_examples=25)
@given(data=st.data())
def test_values_come_back(kind: pa.DataType, values: Any, data: st.DataObject) -> None:
    column = pa.array(data.draw(st.lists(st.none() | values)), kind)
    through = json.loads(json.dumps(carried_values(column), allow_nan=False))
    assert restored_type(kind) == kind
    back = restored(through, kind)
    assert back.type == kind
    assert str(back) == str(column)  # numbers that are none are not equal to themselves


def test_codes_come_back_as_what_they_stand_for() -> None:
    column = pa.array(["a", None, "b", "a"]).dictionary_encode()
    back = restored(carried_values(column), restored_type(column.type))
    assert back.equals(pa.array(["a", None, "b", "a"]))


def test_what_json_cannot_say_comes_back_as_text() -> None:
    column = pa.array([[("k", Decimal(1))], None], pa.map_(pa.string(), pa.decimal128(3, 0)))
    assert restored_type(column.type) == pa.string()
    assert restored(carried_values(column), pa.string()).to_pylist() == ['[["k", "1"]]', None]
    clock = pa.array([datetime(2020, 1, 1, tzinfo=UTC)], pa.timestamp("s", "Europe/Paris"))
    assert restored_type(clock.type) == pa.string()
    assert carried_values(clock)[0].startswith('"2020-01-01 01:00')


def test_a_schema_goes_through_text() -> None:
    schema = pa.schema([("é", NESTED), ("t", pa.timestamp("ns", "UTC"))], {"pandas": "long"})
    assert schema_of_text(schema_text(schema)).equals(schema.remove_metadata(), check_metadata=True)
    for wrong in ("", "?", "AAAA", None, 5):
        with pytest.raises(BlendplanError, match="no schema of a table"):
            schema_of_text(wrong)


def test_columns_of_several_files() -> None:
    one, two = pa.schema([("a", pa.int64())]), pa.schema([("b", pa.string())])
    assert joined_columns([one, None, two]) == pa.schema([*one, *two])
    assert joined_columns([one, pa.schema([("a", pa.string())])]) is None
    assert joined_columns([None]) is None
