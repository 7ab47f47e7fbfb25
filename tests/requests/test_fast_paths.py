"""The fast readers against the exact one: the same requests, the same rejects."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.requests.collect import Block
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.json_blocks import read_block
from blendplan.requests.lines import Reading, read_exactly
from blendplan.requests.read import read_requests
from blendplan.requests.tokens import Estimate

Row = dict[str, Any]

# A text with one of the words that Arrow takes for numbers is left to the exact reader.
TEXT = (st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)).filter(
    lambda text: "NaN" not in text and "Inf" not in text
)
COUNT = st.none() | st.integers(1, 10**9)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXT})
ANSWERS = st.none() | st.integers(1, 16_384)
LIMITS: dict[Any, Any] = {
    "max_tokens": COUNT,
    "max_completion_tokens": COUNT,
    "n": ANSWERS,
}
SAMPLING: dict[Any, Any] = {
    "temperature": st.floats(0, 2),
    "stop": st.lists(TEXT, max_size=2) | TEXT,
    "logit_bias": st.dictionaries(TEXT, st.integers(), max_size=2),
}
PROMPTS: list[dict[Any, Any]] = [
    {"prompt": TEXT},
    {"prompt_token_ids": st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5)},
    {"messages": st.lists(MESSAGE, min_size=1, max_size=3)},
]
URLS = {"prompt": "completions", "prompt_token_ids": "completions", "messages": "chat/completions"}


def plain_lines(prompt: dict[Any, Any]) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        prompt, optional={"id": st.none() | TEXT, "output_tokens": COUNT} | LIMITS | SAMPLING
    )


def batch_lines(prompt: dict[Any, Any]) -> st.SearchStrategy[Row]:
    (kind,) = prompt
    return st.fixed_dictionaries(
        {
            "body": st.fixed_dictionaries(
                prompt, optional=LIMITS | SAMPLING | {"output_tokens": COUNT}
            )
        },
        optional={
            "custom_id": st.none() | TEXT,
            "id": st.none() | TEXT,
            "url": st.none() | st.just(f"/v1/{URLS[kind]}"),
            "output_tokens": COUNT,
            "max_tokens": st.just(-7),  # of no meaning outside the body
        },
    )


def jsonl(rows: list[Row], ascii_only: bool, line_end: str) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + line_end for row in rows).encode()


def assert_same_block(fast: Block, exact: Block) -> None:
    assert fast.ids.equals(exact.ids)
    assert fast.bodies is not None
    assert fast.bodies.equals(exact.bodies)
    assert fast.estimated == exact.estimated
    for name in ("source_row", "token_ids", "lengths", "output_tokens", "max_tokens"):
        first, second = getattr(fast, name), getattr(exact, name)
        np.testing.assert_array_equal(first, second)
    assert (fast.answers is None) == (exact.answers is None)
    if fast.answers is not None and exact.answers is not None:
        np.testing.assert_array_equal(fast.answers, exact.answers)
        assert first.dtype == second.dtype


def refuse(row: int, reason: str, original: bytes) -> None:
    raise AssertionError(f"rejected line {row}: {reason}")


@settings(max_examples=100)
@given(
    rows=st.lists(
        st.one_of([form(prompt) for prompt in PROMPTS for form in (plain_lines, batch_lines)]),
        min_size=1,
        max_size=5,
    ),
    ascii_only=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    first_row=st.integers(0, 5),
)
def test_good_lines_of_any_form(
    rows: list[Row], ascii_only: bool, line_end: str, first_row: int
) -> None:
    text = jsonl(rows, ascii_only, line_end)
    fast = read_block(text, first_row)
    exact = read_exactly(text, first_row, Reading(Estimate(), refuse))
    assert fast is not None, "the fast reader must take plain good lines"
    assert exact is not None
    assert_same_block(fast, exact)


GOOD_LINE = '{"id":"%d","prompt":"fine"}'
ODD_LINES = [
    '{"prompt":"Information, Inf: NaN is a number?"}',
    '{"prompt":"a","x":NaN}',
    '{"prompt":"a","x":[-Infinity]}',
    '{"prompt":"a","x":Inf }',
    '{"prompt":"a","prompt":"b"}',
    '{"prompt":"a","\\u0070rompt":"b"}',
    '{"prompt":"a","max_tokens":5.0}',
    '{"prompt":"a","max_tokens":5e0}',
    '{"prompt":"a","max_tokens":-0}',
    '{"prompt":"a","max_tokens":007}',
    '{"prompt":"a","max_tokens":false}',
    '{"prompt":"a","output_tokens":"5"}',
    '{"prompt":"a","output_tokens":99999999999999999999}',
    '{"prompt":"a","x":1e999}',
    '{"prompt":"a"}{"prompt":"b"}',
    '{"prompt":"a",\n"id":"b"}',
    '{"prompt":"a\tb"}',
    '{"prompt":"a\0b"}',
    '{"prompt":"\\ud83d"}',
    '{"prompt":"a","x":"\\ud83d"}',
    '{"prompt":"a","x":"\\x"}',
    '{"prompt":"a",}',
    '{"prompt":"a"} // why',
    '{"prompt":["a"]}',
    '{"prompt":[1,2]}',
    '{"prompt":"a","prompt_token_ids":[1]}',
    '{"prompt_token_ids":[1,null]}',
    '{"messages":[{"role":"user","content":"a","name":"b"}]}',
    '{"messages":[{"role":"user","content":null,"tool_calls":[]}]}',
    '{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"tools":[1]}',
    '{"messages":[null]}',
    '{"id":5,"prompt":"a"}',
    '{"id":"","prompt":"a"}',
    '{"custom_id":"x","url":"/v1/completions","prompt":"a"}',
    '{"url":"anything","prompt":"a"}',
    '{"body":{"prompt":"a"},"url":"/v1/chat/completions"}',
    '{"body":{"prompt":"a"},"prompt":7}',
    '{"body":{"prompt":"a"},"url":"/v1/responses"}',
    '{"body":{"messages":[{"role":"user","content":""}],"tools":[]}}',
    '{"body":{}}',
    '{"prompt":"' + "[" * 600 + '"}',
    '{"prompt":"a","x":' + "[" * 5000 + "]" * 5000 + "}",
    '{"prompt":"a","x":' + "7" * 5000 + "}",
    '{"prompt":"' + "7" * 5000 + '"}',
    "  ",
    " {} ",
    "[]",
]
UNUSUAL_LINES = [
    '{"prompt":"a\\u0000b"}',
    '{"prompt":"\\ud83d\\ude00"}',
    '{"custom_id":null,"id":"x","prompt":"a"}',
    '{"body":null,"prompt":"a"}',
    '{"prompt":"' + "long " * 500_000 + '"}',
]


@pytest.mark.parametrize("odd", ODD_LINES, ids=range(len(ODD_LINES)))
def test_odd_lines_are_left_to_the_exact_reader(odd: str) -> None:
    for kept in ([GOOD_LINE % 1, odd, GOOD_LINE % 2], [odd]):
        assert read_block("\n".join(kept).encode(), 0) is None


@pytest.mark.parametrize("unusual", UNUSUAL_LINES, ids=range(len(UNUSUAL_LINES)))
def test_unusual_lines_are_read_as_by_the_exact_reader(unusual: str) -> None:
    for kept in ([GOOD_LINE % 1, unusual, GOOD_LINE % 2], [unusual]):
        text = "\n".join(kept).encode()
        fast, exact = read_block(text, 0), read_exactly(text, 0, Reading(Estimate(), refuse))
        assert fast is not None and exact is not None
        assert_same_block(fast, exact)


def test_wrong_encoding_is_left_to_the_exact_reader() -> None:
    assert read_block(b'{"prompt":"a","x":"\xff"}\n', 0) is None
    assert read_block(b'{"prompt":"a\xff"}\n', 0) is None


def test_long_blocks_are_parsed_in_pieces() -> None:
    rows = [{"id": str(i), "prompt": "word " * (i % 700)} for i in range(1, 2000)]
    text = jsonl([row for row in rows if row["prompt"]], True, "\n")
    assert len(text) > 3 << 20
    fast = read_block(text, 0)
    exact = read_exactly(text, 0, Reading(Estimate(), refuse))
    assert fast is not None
    assert exact is not None
    assert_same_block(fast, exact)


VALUES: dict[Any, Any] = {
    "id": st.none() | st.sampled_from(["", "a", "b", "c", "d"]),
    "prompt_token_ids": st.none()
    | st.lists(st.none() | st.integers(-1, 5) | st.just(2**31), max_size=4)
    | st.lists(st.integers(0, 9), min_size=1, max_size=4),
    "output_tokens": st.none() | st.sampled_from([-1, 0, 1, 7, 10**9 + 1]),
    "max_tokens": st.none() | st.sampled_from([-2.0, 0.0, 1.0, 2.5, 9.0, float("nan"), 1e12]),
    "temperature": st.none() | st.sampled_from([0.5, float("nan"), float("inf")]),
}
TYPES = {
    "id": pa.string(),
    "prompt_token_ids": pa.list_(pa.int64()),
    "output_tokens": pa.int64(),
    "max_tokens": pa.float64(),
    "temperature": pa.float64(),
}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.sampled_from(["id", "output_tokens", "max_tokens", "temperature"])),
    rows=st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=6),
)
def test_columns_read_as_their_lines(tmp_path: Path, names: set[str], rows: list[Row]) -> None:
    """A table against a JSONL file with the same rows, where a null or NaN is left out."""
    names = names | {"prompt_token_ids"}
    rows = [{name: row[name] for name in row if name in names} for row in rows]
    schema = pa.schema({name: TYPES[name] for name in VALUES if name in names})
    lines = [
        {key: value for key, value in row.items() if value is not None and value == value}
        for row in rows
    ]
    table_path, line_path = tmp_path / "r.parquet", tmp_path / "r.jsonl"
    pq.write_table(pa.Table.from_pylist(rows, schema), table_path)
    line_path.write_bytes(jsonl(lines, True, "\n"))
    assert outcome(table_path) == outcome(line_path)


def outcome(path: Path) -> list[Any]:
    """All that reading gives, bodies cut to what tables and lines both have."""
    rejects = path.with_name("rejects.jsonl")
    found: list[Any] = []
    try:
        requests = read_requests(path, on_error="skip", rejects=rejects)
    except BlendplanError:
        pass
    else:
        found += [requests.ids.to_pylist(), requests.token_ids.tolist()]
        found += [requests.offsets.tolist(), requests.source_row.tolist()]
        found += [requests.output_tokens.tolist(), requests.max_tokens.tolist()]
        bodies = [None] * len(requests) if requests.bodies is None else requests.bodies.to_pylist()
        for body in bodies:
            fields = json.loads(body or b"{}")
            found.append([fields.get(name) for name in ("max_tokens", "temperature")])
    for line in rejects.read_text().splitlines():
        reject = json.loads(line)
        number = reject.get("row", reject.get("line"))
        found.append((number, reject["reason"].replace("line", "row")))
    return found


@pytest.mark.parametrize("batches", [1, 7])
def test_many_row_groups(tmp_path: Path, batches: int) -> None:
    generator = np.random.default_rng(1)
    prompts = [generator.integers(0, 2**31, size).tolist() for size in range(1, 200)]
    table = pa.table({"prompt_token_ids": prompts})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=-(-len(prompts) // batches))
    (tmp_path / "r").write_bytes(sink.getvalue())
    requests = read_requests(tmp_path / "r")
    expected = requests_from_lists(prompts)
    np.testing.assert_array_equal(requests.token_ids, expected.token_ids)
    np.testing.assert_array_equal(requests.offsets, expected.offsets)
