"""Bad request files: one line that says what, where and what to do; never anything else."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.requests.source import LONGEST_LINE_BYTES


def zipped(content: bytes) -> bytes:
    """Gzip without a time stamp: the names of tests must be the same in every process."""
    return gzip.compress(content, mtime=0)


GOOD = b'{"prompt":"fine"}\n'
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

BAD_LINES: list[tuple[bytes, str]] = [
    (b"nonsense", "not JSON"),
    (b'{"prompt":"a"', "not JSON"),
    (b'{"prompt":"a"} x', "not JSON"),
    (b'{"prompt":"a"}{"prompt":"b"}', "not JSON"),
    (b"[]", "a list of 0, not a JSON object"),
    (b'"text"', '"text", not a JSON object'),
    (b"null", "null, not a JSON object"),
    (b'{"prompt":"caf\xe9"}', "byte 0xe9 at column 15 is not UTF-8"),
    (b'{"prompt":"a","top_p":NaN}', "NaN is not JSON"),
    (b'{"prompt":"a","top_p":-Infinity}', "-Infinity is not JSON"),
    (b'{"prompt":"a","n":' + b"9" * 5000 + b"}", "not usable JSON"),
    (b'{"prompt":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b"{}", 'no prompt; give "prompt"'),
    (b'{"custom_id":"a","url":"/v1/completions"}', 'without "body"'),
    (b'{"custom_id":"a","body":{"model":"m"}}', "no prompt"),
    (b'{"body":5}', '"body" is 5'),
    (b'{"body":{"prompt":"a"},"url":"/v1/embeddings"}', 'no "input"'),
    (b'{"body":{"prompt":"a"},"url":"/v1/moderations"}', '"url" is "/v1/moderations"'),
    (b'{"body":{"prompt":"a"},"url":"/v1/messages"}', "Anthropic's Messages API"),
    (b'{"custom_id":"a","params":{"messages":[]}}', "Anthropic's Message Batches"),
    (b'{"recordId":"a","modelInput":{"messages":[]}}', "of Amazon Bedrock; write OpenAI batch"),
    (b'{"key":"a","request":{"contents":[]}}', "of the Gemini API"),
    (b'{"request":{"contents":[]}}', "of Gemini on Vertex AI"),
    (b'{"contents":[{"parts":[{"text":"a"}]}]}', "a request of the Gemini API"),
    (b'{"inputs":"a","parameters":{"max_new_tokens":5}}', "Text Generation Inference"),
    (b'{"id":"b","custom_id":"a","response":null,"error":{}}', "a line of results; give the"),
    (b'{"requests":[{"custom_id":"a","params":{}}]}', "first of which is a line of Anthropic's"),
    (b'{"requests":["a"]}', "no prompt"),
    (b'{"request":"a text"}', "--prompt-column NAME"),
    (b'{"body":{"prompt":"a"},"url":7}', '"url" is 7'),
    (b'{"body":{"prompt":"a"},"url":"/v1/chat/completions"}', 'no "messages"'),
    (b'{"body":{"messages":[]},"url":"/v1/completions"}', 'not "prompt"'),
    (b'{"prompt":""}', '"prompt" is empty'),
    (b'{"prompt":5}', '"prompt" is 5'),
    (b'{"prompt":["a","b"]}', "holds 2 prompts"),
    (b'{"prompt":"a","messages":[]}', 'both "prompt" and "messages"'),
    (b'{"prompt":"\\ud800"}', "half a surrogate pair (\\ud800)"),
    (b'{"id":"\\udfff","prompt":"a"}', "half a surrogate pair"),
    (b'{"prompt_token_ids":[]}', '"prompt_token_ids" is empty'),
    (b'{"prompt_token_ids":"1 2"}', '"prompt_token_ids" is "1 2"'),
    (b'{"prompt_token_ids":[1,-2]}', '"prompt_token_ids"[1] is -2'),
    (b'{"prompt_token_ids":[2147483648]}', "[0] is 2147483648"),
    (b'{"prompt_token_ids":[99999999999999999999999]}', "is 99999999999999999999999"),
    (b'{"prompt_token_ids":[1,2.0]}', "[1] is 2.0"),
    (b'{"prompt_token_ids":[true]}', "[0] is true"),
    (b'{"prompt_token_ids":[1,null]}', "[1] is null"),
    (b'{"prompt_token_ids":[[1]]}', "[0] is a list of 1"),
    (b'{"messages":{}}', '"messages" is an object'),
    (b'{"messages":[]}', '"messages" is empty'),
    (b'{"messages":["hi"]}', '"messages"[0] is "hi"'),
    (b'{"messages":[{"content":"hi"}]}', '"role" is null'),
    (b'{"messages":[{"role":"","content":"hi"}]}', '"role" is ""'),
    (b'{"messages":[{"role":"user","content":7}]}', '"content" is 7'),
    (
        b'{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}',
        "tokens of its image cannot be counted",
    ),
    (b'{"messages":[{"role":"user","content":"\\udc00"}]}', "half a surrogate pair"),
    (b'{"messages":[{"role":"user","content":"","name":"\\udc00"}]}', "half a surrogate pair"),
    (b'{"messages":[{"role":"user","content":["a"]}]}', 'a content part is "a"'),
    (b'{"prompt":"a","response_format":{"type":"json_schema","schema":{}}}', 'no "json_schema"'),
    (b'{"id":"","prompt":"a"}', '"id" is ""'),
    (b'{"id":1.0,"prompt":"a"}', '"id" is 1.0; give a text that is not empty or a whole number'),
    (b'{"custom_id":["a"],"prompt":"a"}', '"custom_id" is a list of 1'),
    (b'{"id":true,"prompt":"a"}', '"id" is true'),
    (b'{"prompt":"a","max_tokens":-1}', '"max_tokens" is -1; give a whole number from 0'),
    (b'{"prompt":"a","max_tokens":-5}', '"max_tokens" is -5'),
    (b'{"prompt":"a","max_tokens":1.5}', '"max_tokens" is 1.5'),
    (b'{"prompt":"a","max_tokens":true}', '"max_tokens" is true'),
    (b'{"prompt":"a","max_tokens":"ten"}', '"max_tokens" is "ten"'),
    (b'{"prompt":"a","n":0}', '"n" is 0; give a whole number from 1 to 16384 or leave it out'),
    (b'{"prompt":"a","n":-1}', '"n" is -1'),
    (b'{"prompt":"a","n":"many"}', '"n" is "many"'),
    (b'{"prompt":"a","n":2.5}', '"n" is 2.5'),
    (b'{"prompt":"a","n":true}', '"n" is true'),
    (b'{"prompt":"a","n":1000000000}', '"n" is 1000000000; give a whole number from 1 to 16384'),
    (b'{"custom_id":"a","body":{"prompt":"a","n":16385}}', '"n" is 16385'),
    (b'{"prompt":"a","max_tokens":1e999}', '"max_tokens" is Infinity'),
    (b'{"prompt":"a","max_completion_tokens":1000000001}', "is 1000000001"),
    (b'{"prompt":"a","max_completion_tokens":5,"max_tokens":-1}', '"max_tokens" is -1'),
    (b'{"prompt":"a","output_tokens":-1}', '"output_tokens" is -1'),
    (b'{"prompt":"a","output_tokens":{}}', '"output_tokens" is an object'),
]


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(BlendplanError) as caught:
        read_requests(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    return message


@pytest.mark.parametrize(("line", "expected"), BAD_LINES, ids=[what for _, what in BAD_LINES])
def test_bad_line(tmp_path: Path, line: bytes, expected: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD)
    message = error_of(path)
    assert message.startswith(f"{path}, line 3: ")
    assert expected in message
    assert read_requests(path, on_error="skip").ids.to_pylist() == ["1", "4"]
    (reject,) = (tmp_path / "r.jsonl.rejects.jsonl").read_text("utf-8").splitlines()
    assert expected in json.loads(reject)["reason"]


def test_long_values_are_shortened(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"prompt": "a", "max_tokens": "many\n\x1b[31m" * 1000}))
    message = error_of(path)
    assert "many\\n\\u001b" in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"id": "a"}, {"id": "b"}, {"id": "a"}], 'line 3: the id "a" is that of line 1'),
        ([{"id": 7}, {"id": "7"}], 'line 2: the id "7" is that of line 1'),
        ([{"id": "2"}, {}], 'line 2: the id "2" is that of line 1'),
    ],
)
def test_repeated_ids(tmp_path: Path, lines: list[dict[str, Any]], expected: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x", **line}) + "\n" for line in lines))
    assert expected in error_of(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("r.jsonl", b"", "is empty"),
        ("r.jsonl", b"\n \n\t\n", "holds no request"),
        ("r.jsonl", b"\xef\xbb\xbf", "holds no request"),
        ("r.jsonl", '{"prompt":"a"}'.encode("utf-16"), "UTF-16"),
        ("r.jsonl", '{"prompt":"a"}'.encode("utf-16-le"), "not text"),
        ("r.jsonl", b"\x7fELF\x02\x01\x01\0\0\0\0", "not text"),
        ("r.jsonl", b"PK\x03\x04 and so on", "a zip archive"),
        ("r.jsonl.gz", zipped(b""), "holds no request"),
        ("r.jsonl.gz", zipped(GOOD * 99)[:-9], "truncated"),
        ("r.jsonl.gz", zipped(GOOD * 99)[:-3] + b"abc", "cannot be read"),
        ("r.jsonl.gz", zipped(zipped(GOOD)), "not text"),
        ("r.jsonl.zst", zstandard.compress(GOOD * 99)[:-5], "truncated"),
        ("r.jsonl.zst", zstandard.compress(GOOD) + b"junk", "cannot be read"),
        ("r.parquet", b"", "is empty"),
        ("r.parquet", GOOD, "named .parquet"),
        ("r.parquet", b"PAR1 and no more", "truncated or damaged"),
        ("r.csv", b"prompt,id\ncaf\xe9,1\n", "is not UTF-8; save the file as UTF-8"),
        ("r.csv", b"caf\xe9,prompt\na,1\n", "is not UTF-8; save the file as UTF-8"),
        ("r.arrow", b"ARROW1\0\0 and no more", "truncated or damaged"),
        ("r.arrow", b"\xff\xff\xff\xff\x10\0\0\0", "truncated or damaged"),
    ],
)
def test_bad_file(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for on_error in ("fail", "skip"):
        message = error_of(path, on_error=on_error, rejects=tmp_path / "rejects")
        assert str(path) in message
        assert expected in message


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(GOOD)
    assert "did you mean" in error_of(tmp_path / "request.jsonl")
    assert "check the path" in error_of(tmp_path / "else" / "r.jsonl")
    (tmp_path / "empty").mkdir()
    assert "is a folder without request files" in error_of(tmp_path / "empty")
    assert "null" in error_of(Path("a\0b"))
    assert "cannot be opened" in error_of(tmp_path / "requests.jsonl" / "r.jsonl")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be opened" in error_of(tmp_path / "loop")


def test_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blendplan.requests.source.LONGEST_LINE_BYTES", 1000)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"prompt":"' + b"x" * 5000)
    assert "a line is longer" in error_of(path)
    assert LONGEST_LINE_BYTES >= 1 << 26


def test_wrong_options(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD)
    assert "'fail' or 'skip'" in error_of(path, on_error="stop")
    assert "not a folder" in error_of(path, model_dir=tmp_path / "model")


def test_bad_table_rows_say_what_a_line_would(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    good: dict[str, Any] = {
        "id": "a",
        "prompt_token_ids": [1],
        "max_tokens": 3,
        "n": None,
        "heat": 0.5,
        "image": b"none",
    }
    bad_rows: list[tuple[dict[str, Any], str]] = [
        ({"prompt_token_ids": []}, "is empty"),
        ({"prompt_token_ids": None}, "no prompt"),
        ({"prompt_token_ids": [5, None]}, "[1] is null"),
        ({"prompt_token_ids": [5, -1]}, "[1] is -1"),
        ({"prompt_token_ids": [2**31]}, "[0] is 2147483648"),
        ({"max_tokens": -1}, '"max_tokens" is -1'),
        ({"max_tokens": 2.5}, '"max_tokens" is 2.5'),
        ({"n": 0}, '"n" is 0'),
        ({"n": 10**9}, '"n" is 1000000000'),
        ({"n": "x"}, '"n" is "x"'),
        ({"max_tokens": 10**12}, "is 1000000000000"),
        ({"id": ""}, '"id" is ""'),
        ({"id": "a"}, 'the id "a" is that of row 1'),
        ({"heat": float("inf")}, "Infinity is not JSON"),
        ({"image": b"\xff\xd8"}, 'column "image" holds bytes that are not UTF-8'),
    ]
    for changes, expected in bad_rows:
        rows = [good, {**good, "id": "b", **changes}]
        pq.write_table(pa.Table.from_pylist(rows), path)
        message = error_of(path)
        assert message.startswith(f"{path}, row 2: ")
        assert expected in message


@pytest.mark.parametrize("value", [b"\xff", [b"a", b"\xff"], {"inner": b"\xff"}])
def test_bytes_that_are_no_text_are_told_by_their_column(tmp_path: Path, value: object) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "caption": [b"caf\xc3\xa9"], "b": [value]}), path)
    for shape in ({}, {"max_tokens": 5}):
        message = error_of(path, **shape)
        assert message.startswith(f'{path}, row 1: column "b" holds bytes that are not UTF-8')
        assert message.endswith("decode it to text, or leave the column out")
    assert len(read_requests(path, prompt_column="caption")) == 1
    pq.write_table(pa.table({"t": [b"\xff"], "b": ["x"]}), path)
    assert 'column "t" holds bytes' in error_of(path, prompt_column="t")


def test_table_without_prompts(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"id": ["a"], "promt": ["x"]}), path)
    assert 'is "prompt" meant?' in error_of(path)
    pq.write_table(pa.table({"prompt_token_ids": pa.array([], pa.list_(pa.int32()))}), path)
    assert "holds no request" in error_of(path)


def test_plan_is_no_request_file(tmp_path: Path) -> None:
    table = pa.table({"prompt_token_ids": [[1]]}).replace_schema_metadata({"blendplan": "{}"})
    with pa.ipc.new_file(str(tmp_path / "plan.arrow"), table.schema) as file:
        file.write_table(table)
    assert "is a plan" in error_of(tmp_path / "plan.arrow")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**11), 10**11)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system"]) | JSON_VALUES, "content": JSON_VALUES},
        optional={"tool_calls": JSON_VALUES, "name": JSON_VALUES},
    ),
    max_size=3,
)
FIELDS: dict[Any, Any] = {
    "prompt": JSON_VALUES,
    "prompt_token_ids": JSON_VALUES | st.lists(st.integers(-1, 2**31), max_size=3),
    "messages": JSON_VALUES | MESSAGES,
    "max_tokens": JSON_VALUES,
    "max_completion_tokens": JSON_VALUES,
    "output_tokens": JSON_VALUES,
    "id": JSON_VALUES,
    "tools": JSON_VALUES,
    "temperature": JSON_VALUES,
}
LINES = st.lists(
    st.one_of(
        JSON_VALUES.map(json.dumps),
        st.fixed_dictionaries({}, optional=FIELDS).map(json.dumps),
        st.fixed_dictionaries(
            {"body": st.fixed_dictionaries({}, optional=FIELDS) | JSON_VALUES},
            optional={"custom_id": JSON_VALUES, "url": st.sampled_from(["/v1/completions", ""])},
        ).map(json.dumps),
        st.text(max_size=20),
        st.just('{"prompt":"fine"}'),
    ),
    max_size=6,
)


def check_only_requests_or_one_line(path: Path) -> None:
    for on_error in ("fail", "skip"):
        try:
            requests = read_requests(path, on_error=on_error, rejects=path.with_name("rejects"))
        except BlendplanError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert 0 < len(requests) == len(set(requests.ids.to_pylist()))
            assert (requests.prompt_tokens > 0).all()
            assert len(requests.token_ids) == requests.offsets[-1]


@FUZZ
@given(lines=LINES)
def test_any_lines(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    check_only_requests_or_one_line(path)


@FUZZ
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", GOOD, b"\x1f\x8b", b"PAR1"]))
def test_any_bytes(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "r"
    path.write_bytes(start + content)
    check_only_requests_or_one_line(path)


def damaged_kinds() -> list[bytes]:
    table = pa.table({"id": ["a", "b"], "prompt_token_ids": [[1, 2], [3]], "max_tokens": [1, None]})
    files = [gzip.compress(GOOD * 5), zstandard.compress(GOOD * 5)]
    for writer in (pa.ipc.new_file, pa.ipc.new_stream):
        stream = io.BytesIO()
        with writer(stream, table.schema) as file:
            file.write_table(table)
        files.append(stream.getvalue())
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return [*files, stream.getvalue()]


@FUZZ
@given(
    data=st.sampled_from(damaged_kinds()),
    cut=st.none() | st.floats(0, 1),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
)
def test_any_damage(
    tmp_path: Path, data: bytes, cut: float | None, places: list[tuple[float, int]]
) -> None:
    damaged = bytearray(data)
    for place, byte in places:
        damaged[int(place * len(damaged))] = byte
    path = tmp_path / "r"
    path.write_bytes(damaged if cut is None else damaged[: int(cut * len(damaged))])
    check_only_requests_or_one_line(path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": [[1], []]}, "prompts[1] is empty"),
        ({"prompts": [[1, -1]]}, "prompts[0] holds -1"),
        ({"prompts": [[2**31]]}, "prompts[0] holds 2147483648"),
        ({"prompts": [[2**70]]}, "not a flat list"),
        ({"prompts": [[1.5]]}, "not a flat list"),
        ({"prompts": [[True]]}, "not a flat list"),
        ({"prompts": ["text"]}, "not a flat list"),
        ({"prompts": [[[1]]]}, "not a flat list"),
        ({"prompts": [[1], [2]], "ids": ["a"]}, "1 ids for 2 prompts"),
        ({"prompts": [[1], [2]], "ids": ["a", "a"]}, "ids[1]"),
        ({"prompts": [[1]], "ids": [3]}, "ids[0] is 3"),
        ({"prompts": [[1]], "output_tokens": [0]}, "output_tokens[0] is 0"),
        ({"prompts": [[1]], "output_tokens": [1, 2]}, "2 output_tokens for 1 prompts"),
        ({"prompts": [[1], [1]], "max_tokens": [None, 10**10]}, "max_tokens[1]"),
        ({"prompts": [[1]], "max_tokens": ["x"]}, "not a flat list"),
        (
            {"prompts": [[1]], "answers": [0]},
            "answers[0] is 0; give a whole number from 1 to 16384",
        ),
        ({"prompts": [[1]], "answers": [1, 2]}, "2 answers for 1 prompts"),
    ],
)
def test_bad_lists(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(BlendplanError) as caught:
        requests_from_lists(**arguments)
    assert expected in str(caught.value)
