"""Several files, folders and globs as one set of requests, and standard input."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.planning.planner import plan
from blendplan.requests.inputs import names_several
from blendplan.requests.read import read_requests

ROWS = [{"prompt": f"word {number}", "max_tokens": number + 1} for number in range(9)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of three requests, of three kinds, the middle one with a blank line and ids."""
    place = tmp_path / "in"
    (place / "deep").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), place / "a.parquet")
    named = [{"id": number, **row} for number, row in enumerate(ROWS[3:6])]
    (place / "b.jsonl").write_text("\n\n".join(map(json.dumps, named)) + "\n")
    (place / "deep" / "c.json").write_text(json.dumps(ROWS[6:]))
    return place


def test_files_are_read_as_one(folder: Path) -> None:
    files = [folder / "a.parquet", folder / "b.jsonl", folder / "deep" / "c.json"]
    whole = read_requests(files)
    assert whole.max_tokens.tolist() == list(range(1, 10))
    assert whole.source_row.tolist() == [0, 1, 2, 3, 5, 7, 8, 9, 10]
    assert whole.ids.to_pylist() == [
        "a.parquet:1", "a.parquet:2", "a.parquet:3", "0", "1", "2", "deep/c.json:1",
        "deep/c.json:2", "deep/c.json:3",
    ]  # fmt: skip
    parts = [read_requests(file) for file in files]
    assert whole.token_ids.tolist() == np.concatenate([one.token_ids for one in parts]).tolist()
    assert whole.columns == pa.schema([("prompt", pa.string()), ("max_tokens", pa.int64())])
    for words in (folder, str(folder), [f"{folder}/*.*", f"{folder}/**/*.json"], f"{folder}/**/*"):
        again = read_requests(words)
        assert again.ids.equals(whole.ids)
        assert again.sha256 == whole.sha256
    assert whole.sha256 not in {part.sha256 for part in parts}


def test_what_is_wrong_names_the_file(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jsonl").write_text('{"prompt": "a"}\nno\n{"prompt": "b"}\n')
    with pytest.raises(BlendplanError, match=r"in/b\.jsonl, line 2: not JSON"):
        read_requests(folder)
    with pytest.raises(BlendplanError, match="matches no file"):
        read_requests(f"{folder}/*.csv")
    (folder / "b.jsonl").write_text('{"id": "a.parquet:2", "prompt": "x"}\n')
    with pytest.raises(
        BlendplanError, match=r"b\.jsonl, line 1: the id .* is that of .*a\.parquet, row 2 already"
    ):
        read_requests(folder)
    rejects = tmp_path / "rejects.jsonl"
    requests = read_requests(folder, on_error="skip", rejects=rejects)
    assert requests.rejects.column("source_row").to_pylist() == [3]
    assert len(requests) == 6
    (rejected,) = map(json.loads, rejects.read_text().splitlines())
    assert rejected["file"] == f"{folder}/b.jsonl"
    assert rejected["line"] == 1
    (folder / "b.jsonl").write_text('{"prompt": "' + "x" * 9000 + '"}\n')
    with pytest.raises(BlendplanError, match=r"b\.jsonl, line 1 \(id 'b\.jsonl:1'\): prompt of"):
        plan(read_requests(folder), gpu="l4", max_model_len=1000)


def test_texts_and_token_ids_do_not_go_together(folder: Path) -> None:
    pq.write_table(pa.table({"prompt_token_ids": [[1, 2]]}), folder / "b.parquet")
    with pytest.raises(BlendplanError, match=r"a\.parquet holds text, .*b\.parquet holds token"):
        read_requests(folder)


def test_what_names_several(folder: Path) -> None:
    assert names_several([folder])
    assert names_several([f"{folder}/*.jsonl"])
    assert names_several(["s3://bucket/r.jsonl"])
    assert names_several([folder / "a.parquet", folder / "b.jsonl"])
    assert not names_several([folder / "a.parquet"])
    assert not names_several([folder / "none.jsonl"])
    (folder / "[a].jsonl").write_text('{"prompt": "a"}\n')
    assert not names_several([f"{folder}/[a].jsonl"])


class _Piped(io.TextIOWrapper):
    def isatty(self) -> bool:
        return self.buffer.getvalue() == b"terminal"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["a.parquet", "b.jsonl", "deep/c.json"])
def test_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    content = (folder / name).read_bytes()
    monkeypatch.setattr(sys, "stdin", _Piped(io.BytesIO(content)))
    piped, read = read_requests("-"), read_requests(folder / name)
    assert piped.ids.equals(read.ids)
    assert piped.token_ids.tolist() == read.token_ids.tolist()
    assert piped.sha256 == read.sha256
    assert piped.source == "standard input"
    for wrong, said in ((b"terminal", "is a terminal"), (b"", "standard input is empty")):
        monkeypatch.setattr(sys, "stdin", _Piped(io.BytesIO(wrong)))
        with pytest.raises(BlendplanError, match=said):
            read_requests("-")


def test_the_command_reads_what_is_piped(tmp_path: Path) -> None:
    words = ["plan", "-", "--gpu", "l4", "--effort", "0", "-o", str(tmp_path / "plan.arrow")]
    lines: list[dict[str, Any]] = ROWS
    finished = subprocess.run(
        [sys.executable, "-m", "blendplan", *words, "--json", "--quiet"],
        input="".join(json.dumps(line) + "\n" for line in lines).encode(),
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["requests"] == 9
