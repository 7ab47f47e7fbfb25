"""The context of a model: prompts over it are refused, outputs are cut to it."""

import json
from pathlib import Path

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.requests.context import check_context, over_context, within_context
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.requests.rejected import leave_out

LONG, EDGE, SHORT = [1] * 12, [2] * 10, [3] * 9


def test_a_prompt_must_leave_room_for_a_token() -> None:
    requests = requests_from_lists([LONG, EDGE, SHORT])
    refused = over_context(requests, 10)
    assert [(refusal.row, refusal.message) for refusal in refused] == [
        (0, "prompt of 12 tokens, model takes 10"),
        (1, "prompt of 10 tokens, model takes 10"),
    ]
    assert {refusal.code for refusal in refused} == {"context_length_exceeded"}
    with pytest.raises(BlendplanError, match=r"line 1 .*prompt of 12 tokens, model takes 10; 2 "):
        check_context(requests, 10)
    check_context(requests, 13)


def test_an_output_longer_than_the_context_is_a_mistake() -> None:
    requests = requests_from_lists([SHORT, SHORT], output_tokens=[13, 12])
    (refusal,) = over_context(requests, 12)
    assert (refusal.row, refusal.message) == (0, "output of 13 tokens, model takes 12")


def test_outputs_are_cut_to_what_the_prompt_leaves() -> None:
    requests = requests_from_lists([SHORT] * 3, output_tokens=[8, 2, None])
    requests = within_context(requests, 12)
    assert requests.output_tokens.tolist() == [3, 2, -1]
    assert requests.max_tokens.tolist() == [-1, -1, -1]
    assert within_context(requests, 12) is requests


def test_caps_are_cut_too(tmp_path: Path) -> None:
    lines = [{"prompt_token_ids": SHORT, "max_tokens": cap} for cap in (2, 3, 4096)]
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert within_context(read_requests(path), 12).max_tokens.tolist() == [2, 3, 3]


def test_what_is_left_out_is_kept_as_columns_and_in_the_rejects(tmp_path: Path) -> None:
    path, rejects = tmp_path / "requests.jsonl", tmp_path / "rejects.jsonl"
    lines = [
        json.dumps({"id": "long", "prompt_token_ids": LONG}),
        json.dumps({"id": 7, "prompt_token_ids": []}),
        json.dumps({"id": "short", "prompt_token_ids": SHORT}),
        '{"custom_id": "cut", "prompt": "Hel',
        "what is this",
        json.dumps({"id": "short", "prompt_token_ids": SHORT}),
    ]
    path.write_text("\n".join(lines))
    requests = read_requests(path, on_error="skip", rejects=rejects)
    assert requests.rejected == 4
    requests = leave_out(requests, over_context(requests, 10), rejects)

    assert requests.ids.to_pylist() == ["short"]
    assert requests.rejected == 5
    told = requests.rejects.to_pydict()
    assert told["source_row"] == [0, 1, 3, 4, 5]
    assert told["request_id"] == ["long", "7", "cut", "5", "short"]
    assert told["code"] == ["context_length_exceeded", *["invalid_request"] * 4]
    assert set(told["status"]) == {400}
    assert told["message"][0] == "prompt of 12 tokens, model takes 10"
    written = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert sorted(entry["line"] for entry in written) == [1, 2, 4, 5, 6]
    assert np.array_equal(requests.prompt(0), SHORT)
