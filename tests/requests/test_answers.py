"""How many answers requests ask for, in every kind of request file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.requests.columns import select
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.requests.write import write_requests

LINES: list[dict[str, Any]] = [
    {"prompt": "one"},
    {"prompt": "three", "n": 3},
    {"prompt": "null", "n": None},
    {"prompt": "best", "n": 2, "best_of": 5},
    {"prompt": "float", "n": 4.0},
    {"custom_id": "x", "n": 9, "body": {"prompt": "inner", "n": 2}},
]
EXPECTED = [1, 3, 1, 2, 4, 2]


@pytest.mark.parametrize("without_floats", [False, True])
def test_lines(tmp_path: Path, without_floats: bool) -> None:
    # Numbers written as floats take the exact reader, whole numbers the fast one.
    lines = [line for line in LINES if not (without_floats and line.get("n") == 4.0)]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers = read_requests(path).answers
    assert answers is not None
    expected = [number for number in EXPECTED if not (without_floats and number == 4)]
    assert answers.tolist() == expected


def test_nobody_asks_for_several(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"prompt": "a", "n": 1}\n{"prompt": "b"}\n')
    assert read_requests(path).answers is None
    assert requests_from_lists([[1], [2]], answers=[1, None]).answers is None


@pytest.mark.parametrize(
    "numbers", [pa.array([None, 3, 1]), pa.array([None, 3.0, 1.0]), pa.array([np.nan, 3.0, 1.0])]
)
@pytest.mark.parametrize("prompts", [[[1], [2], [3]], ["a", "b", "c"]])
def test_columns(tmp_path: Path, numbers: pa.Array, prompts: list[Any]) -> None:
    name = "prompt" if isinstance(prompts[0], str) else "prompt_token_ids"
    pq.write_table(pa.table({name: prompts, "n": numbers}), tmp_path / "requests.parquet")
    answers = read_requests(tmp_path / "requests.parquet").answers
    assert answers is not None
    assert answers.tolist() == [1, 3, 1]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    requests = requests_from_lists([[1], [2], [3]], answers=[4, None, 2])
    write_requests(requests, tmp_path / f"requests{suffix}")
    again = read_requests(tmp_path / f"requests{suffix}")
    assert again.answers is not None
    assert again.answers.tolist() == [4, 1, 2]


def test_some_of_the_requests() -> None:
    requests = requests_from_lists([[1], [2], [3]], answers=[4, None, 2])
    chosen = select(requests, np.array([2, 0])).answers
    assert chosen is not None
    assert chosen.tolist() == [2, 4]
    assert select(requests, np.array([1])).answers is None
