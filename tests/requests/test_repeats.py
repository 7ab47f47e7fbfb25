"""Identical requests: which are, and what is kept of those that do not run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests
from blendplan.requests.repeats import repeats_of, run_once

PROMPTS = st.sampled_from(["a", "b", [1, 2]])
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.0, 1, None]),
        "seed": st.sampled_from([None, 1, 2]),
        "max_tokens": st.sampled_from([3, 4]),
        "label": st.sampled_from(["x", "y"]),
        "output_tokens": st.just(2),
    },
)


def requests_of(folder: Path, lines: list[dict[str, Any]]) -> Requests:
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_requests(path)


def same_answer(one: dict[str, Any], two: dict[str, Any]) -> bool:
    """The oracle: equal but for a field that no engine knows, and certain of their answer."""
    stated = [
        {name: value for name, value in line.items() if value is not None and name != "label"}
        for line in (one, two)
    ]
    certain = one.get("temperature") == 0 or one.get("seed") is not None
    return certain and stated[0] == stated[1]


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.tuples(PROMPTS, PARAMETERS), min_size=1, max_size=12))
@example(lines=[("a", {"temperature": 0, "seed": 1}), ("a", {"temperature": 0.0, "seed": 1})])
def test_the_first_of_each_is_kept(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[Any, dict[str, Any]]]
) -> None:
    asked = [{"prompt": prompt, **parameters} for prompt, parameters in lines]
    kept: dict[int, list[int]] = {}
    for row, line in enumerate(asked):
        of = next((first for first in kept if same_answer(asked[first], line)), row)
        kept.setdefault(of, []).append(row)
    requests = requests_of(tmp_path_factory.mktemp("r"), asked)
    once = run_once(requests)
    assert once.source_row.tolist() == list(kept)
    assert once.bodies is not None
    told = [repeats_of(body) for body in once.bodies.to_pylist()]
    for (first, rows), repeats in zip(kept.items(), told, strict=True):
        assert [first, *(repeat.source_row for repeat in repeats)] == rows
        assert all(repeat.id == str(repeat.source_row + 1) for repeat in repeats)
        assert all(repeat.source.get("label") == asked[repeat.source_row].get("label")
                   for repeat in repeats)  # fmt: skip
    copies = np.zeros(len(kept)) if once.copies is None else once.copies
    assert copies.tolist() == [len(rows) - 1 for rows in kept.values()]


def test_endpoints_tell_requests_apart(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}], "temperature": 0}
    lines: list[dict[str, Any]] = [
        {"custom_id": 1, "url": "/v1/chat/completions", "body": chat},
        {"custom_id": 2, "url": "https://x.org/v1/chat/completions", "body": {**chat, "n": None}},
        {"custom_id": 3, "url": "/v1/chat/completions", "body": {**chat, "n": 2}},
        {"custom_id": 4, "url": "/v1/embeddings", "body": {"input": "a"}},
        {"custom_id": 5, "url": "/v1/embeddings", "body": {"input": "a"}},
        {"custom_id": 6, "url": "/v1/completions", "body": {"prompt": "a", "seed": 1}},
        {"custom_id": 7, "url": "/v1/completions", "body": {"prompt": "a"}},
        {"custom_id": 8, "url": "/v1/completions", "body": {"prompt": "a"}},
    ]
    once = run_once(requests_of(tmp_path, lines))
    assert once.ids.to_pylist() == ["1", "3", "4", "6", "7", "8"]
    assert once.bodies is not None
    assert [repeat.id for repeat in repeats_of(once.bodies[0].as_py())] == [2]
