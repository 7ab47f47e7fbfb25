"""Reading request files: formats, ids, limits, what is kept."""

import gzip
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from blendplan.errors import BlendplanError
from blendplan.requests import source as source_module
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests

CHAT = {
    "custom_id": "chat-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Grüße, wie geht's?"},
        ],
        "max_completion_tokens": 64,
        "max_tokens": 99,
        "temperature": 0.3,
    },
}
COMPLETION = {
    "custom_id": "text-1",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"model": "m", "prompt": "Once upon a time", "max_tokens": 7, "seed": 3},
    "output_tokens": 5,
}


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def text(requests: Requests, row: int) -> str:
    """The text that the estimate stands for: its ids are the bytes."""
    return requests.prompt(row).astype("<i4").tobytes().rstrip(b"\0").decode("utf-8")


def texts(requests: Requests) -> list[str]:
    return [text(requests, row) for row in range(len(requests))]


def test_batch_and_plain_lines(tmp_path: Path) -> None:
    lines = [
        CHAT,
        COMPLETION,
        {"prompt": "hello", "max_tokens": 3, "output_tokens": 2},
        {"id": "ids", "prompt_token_ids": [0, 2**31 - 1], "stop": ["x"]},
        {"id": 12, "messages": [{"role": "user", "content": "hi"}]},
        {"custom_id": "batch-ids", "body": {"prompt": [4, 5, 6], "model": "m"}},
    ]
    requests = read_requests(write_lines(tmp_path / "r.jsonl", lines))
    assert requests.ids.to_pylist() == ["chat-1", "text-1", "3", "ids", "12", "batch-ids"]
    assert requests.source_row.tolist() == [0, 1, 2, 3, 4, 5]
    assert requests.max_tokens.tolist() == [64, 7, 3, -1, -1, -1]
    assert requests.output_tokens.tolist() == [-1, 5, 2, -1, -1, -1]
    assert requests.prompt(3).tolist() == [0, 2**31 - 1]
    assert requests.prompt(5).tolist() == [4, 5, 6]
    assert text(requests, 1) == "Once upon a time"
    assert text(requests, 2) == "hello"
    assert "Be brief." in text(requests, 0)
    assert "Grüße, wie geht's?" in text(requests, 0)
    assert requests.estimated_tokens
    assert requests.bodies is not None
    assert requests.bodies.to_pylist() == [json.dumps(line).encode() for line in lines]


def test_line_is_kept_byte_for_byte(tmp_path: Path) -> None:
    line = b'{ "prompt" :"a\\u00e9\\n" , "logit_bias":{"5":-1.50},"top_p":1e-1, "extra":null}'
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"  \t" + line + b" \r\n")
    requests = read_requests(path)
    assert requests.bodies is not None
    assert requests.bodies[0].as_py() == line


def test_blank_lines_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"prompt":"a"}\r\n   \n\n{"prompt":"b"}')
    requests = read_requests(path)
    assert requests.source_row.tolist() == [1, 4]
    assert requests.ids.to_pylist() == ["2", "5"]


def test_content_parts_and_tool_calls(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "user", "content": parts},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call-7", "function": {"name": "look_up"}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "call-7"},
    ]
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    line = {"messages": messages, "tools": tools}
    (rendered,) = texts(read_requests(write_lines(tmp_path / "r.jsonl", [line])))
    assert (
        rendered.index("look_up")
        < rendered.index("one\ntwo")
        < rendered.index("call-7")
        < rendered.index("3")
    )


def test_common_turns_are_common_prefixes(tmp_path: Path) -> None:
    system = {"role": "system", "content": "A house rule. " * 40}
    lines = [{"messages": [system, {"role": "user", "content": word}]} for word in ("yes", "never")]
    requests = read_requests(write_lines(tmp_path / "r.jsonl", lines))
    first, second = requests.prompt(0), requests.prompt(1)
    shared = int(np.argmin(first[: min(len(first), len(second))] == second[: len(first)]))
    assert shared * 4 >= len("A house rule. " * 40)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".renamed"])
def test_compressed_lines_read_as_plain_ones(tmp_path: Path, suffix: str) -> None:
    plain = write_lines(tmp_path / "r.jsonl", [CHAT, COMPLETION] + [{"prompt": "x" * 50}] * 300)
    data = plain.read_bytes()
    # Two members, as when compressed files are put one after the other.
    half = data.index(b"\n", len(data) // 2) + 1
    pack = gzip.compress if suffix == ".jsonl.gz" else zstandard.compress
    packed = tmp_path / f"r{suffix}"
    packed.write_bytes(pack(data[:half]) + pack(data[half:]))
    assert_same(read_requests(packed), read_requests(plain))
    assert read_requests(packed).sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()


def test_lines_across_block_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"id": f"r{i}", "prompt": "word " * (i % 50 + 1)} for i in range(400)]
    path = write_lines(tmp_path / "r.jsonl", lines)
    whole = read_requests(path)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 97)
    assert_same(read_requests(path, progress=lambda done, total: seen.append((done, total))), whole)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_pipe(tmp_path: Path) -> None:
    plain = write_lines(tmp_path / "r.jsonl", [CHAT, COMPLETION])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(plain.read_bytes()))
    feeder.start()
    requests = read_requests(pipe)
    feeder.join()
    assert_same(requests, read_requests(plain))


def tables() -> dict[str, pa.Table]:
    prompts = [[1, 2, 3], [7], [2**31 - 1, 0]]
    common = {
        "output_tokens": [4, None, 9],
        "max_tokens": [None, 5.0, float("nan")],
        "temperature": [0.5, None, 0.25],
    }
    return {
        "token ids": pa.table({"id": ["a", None, "c"], "prompt_token_ids": prompts, **common}),
        "large, int64, integer ids": pa.table(
            {
                "custom_id": pa.array([10, None, 30]),
                "prompt_token_ids": pa.array(prompts, pa.large_list(pa.int64())),
                **common,
            }
        ),
        "text": pa.table({"id": ["a", None, "c"], "prompt": ["x", "héllo", "y\nz"], **common}),
        "messages": pa.table(
            {
                "messages": [[{"role": "user", "content": word}] for word in ("x", "y", "z")],
                **common,
            }
        ),
        "batch lines": pa.table(
            {
                "custom_id": ["a", "b", "c"],
                "url": ["/v1/completions"] * 3,
                "body": [
                    {"prompt": word, "max_tokens": cap, "temperature": heat}
                    for word, cap, heat in (("x", None, 0.5), ("y", 5, None), ("z", None, 0.25))
                ],
                "output_tokens": common["output_tokens"],
            }
        ),
    }


@pytest.mark.parametrize("name", tables())
@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrow stream", "feather"])
def test_tables(tmp_path: Path, name: str, kind: str) -> None:
    table = tables()[name]
    path = tmp_path / f"r.{kind.split()[0]}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        writer = pa.ipc.new_stream if kind == "arrow stream" else pa.ipc.new_file
        options = pa.ipc.IpcWriteOptions(compression="zstd" if kind == "feather" else None)
        with writer(str(path), table.schema, options=options) as file:
            file.write_table(table, max_chunksize=2)
    requests = read_requests(path)
    ids = {"token ids": ["a", "2", "c"], "large, int64, integer ids": ["10", "2", "30"]}
    ids |= {"text": ["a", "2", "c"], "messages": ["1", "2", "3"], "batch lines": ["a", "b", "c"]}
    assert requests.ids.to_pylist() == ids[name]
    assert requests.source_row.tolist() == [0, 1, 2]
    assert requests.output_tokens.tolist() == [4, -1, 9]
    assert requests.max_tokens.tolist() == [-1, 5, -1]
    assert requests.estimated_tokens == ("ids" not in name)
    assert requests.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert requests.bodies is not None
    fields = [json.loads(body) for body in requests.bodies.to_pylist()]
    bodies = [line.get("body", line) for line in fields]
    assert [body.get("temperature") for body in bodies] == [0.5, None, 0.25]
    if "ids" in name:
        assert [requests.prompt(row).tolist() for row in range(3)] == [
            [1, 2, 3], [7], [2**31 - 1, 0]
        ]  # fmt: skip
        assert bodies[1] == {"max_tokens": 5.0}
    elif name == "text":
        assert texts(requests) == ["x", "héllo", "y\nz"]


def test_table_without_sampling_parameters_has_no_bodies(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"prompt_token_ids": [[1], [2, 3]], "output_tokens": [1, 2]}), path)
    assert read_requests(path).bodies is None


def test_skip_writes_every_reject(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    bad = [b'{"prompt":""}', b'{"prompt":"\xff"}', b'{"id":"a","prompt":"again"}']
    path.write_bytes(b"\n".join([b'{"id":"a","prompt":"x"}', *bad, b'{"prompt":"y"}']))
    requests = read_requests(path, on_error="skip", rejects=tmp_path / "bad.jsonl")
    assert requests.ids.to_pylist() == ["a", "5"]
    assert requests.source_row.tolist() == [0, 4]
    assert texts(requests) == ["x", "y"]
    rejects = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [2, 3, 4]
    assert rejects[0]["original"].encode() == bad[0]
    assert rejects[1]["original_base64"] == "eyJwcm9tcHQiOiL/In0="
    assert rejects[2]["original"].encode() == bad[2]
    assert "empty" in rejects[0]["reason"]
    assert "UTF-8" in rejects[1]["reason"]
    assert "line 1" in rejects[2]["reason"]


def test_skip_of_table_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    prompts = [[1, 2], [], None, [3, -1], [4], [5]]
    pq.write_table(
        pa.table({"id": list("abcdea"), "prompt_token_ids": prompts, "n": [1] * 6}), path
    )
    requests = read_requests(path, on_error="skip")
    assert requests.ids.to_pylist() == ["a", "e"]
    assert requests.token_ids.tolist() == [1, 2, 4]
    assert requests.bodies is not None
    assert requests.bodies.to_pylist() == [b'{"n":1}', b'{"n":1}']
    rejects_path = tmp_path / "r.parquet.rejects.jsonl"
    rejects = [json.loads(line) for line in rejects_path.read_text().splitlines()]
    assert [reject["row"] for reject in rejects] == [2, 3, 4, 6]
    assert json.loads(rejects[2]["original"])["prompt_token_ids"] == [3, -1]
    assert json.loads(rejects[3]["original"]) == {"id": "a", "prompt_token_ids": [5], "n": 1}


def test_skip_without_rejects_leaves_an_empty_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", [CHAT])
    (tmp_path / "bad.jsonl").write_text("from an earlier run\n")
    read_requests(path, on_error="skip", rejects=tmp_path / "bad.jsonl")
    assert (tmp_path / "bad.jsonl").read_bytes() == b""


def test_nothing_but_rejects(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", [{"prompt": ""}, 5])
    with pytest.raises(BlendplanError, match=r"none of its 2 lines .*r\.jsonl\.rejects\.jsonl"):
        read_requests(path, on_error="skip")
    assert len((tmp_path / "r.jsonl.rejects.jsonl").read_text().splitlines()) == 2


def test_rejects_may_not_replace_the_requests(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", [CHAT])
    with pytest.raises(BlendplanError, match="elsewhere"):
        read_requests(path, on_error="skip", rejects=path)


def assert_same(first: Requests, second: Requests) -> None:
    """Equal in everything but the file they come from."""
    assert first.ids.equals(second.ids)
    for name in ("source_row", "token_ids", "offsets", "output_tokens", "max_tokens"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.bodies == second.bodies
    assert first.estimated_tokens == second.estimated_tokens
