"""Requests that are longer than the KV cache: named, or left out and kept in the rejects."""

import json
from pathlib import Path

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.requests.fitting import check_fits, too_long
from blendplan.requests.in_memory import requests_from_lists
from tests.cli.cli_runs import run


def test_the_last_token_needs_no_room() -> None:
    requests = requests_from_lists([[1] * 10, [2] * 10, [3] * 16], output_tokens=[7, 8, 1])
    assert too_long(requests, 16).tolist() == [1]


def test_the_longest_is_named() -> None:
    requests = requests_from_lists([[1] * 10, [2] * 40, [3] * 30], ids=["a", "b", "c"])
    with pytest.raises(BlendplanError, match=r"line 2 \(id 'b'\): 40 prompt tokens can never fit"):
        check_fits(requests, 16)


def test_a_prediction_never_makes_a_request_too_long() -> None:
    requests = requests_from_lists([[1] * 100, [2] * 20], max_tokens=[100_000, 100_000])
    made = plan(requests, gpu="a100-80g", kv_tokens=112)
    made.verify()
    total = made.column("prompt_tokens") + np.rint(made.column("output_tokens_mean"))
    assert (total <= 113).all()


def test_skip_leaves_them_out_and_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    lines = [{"id": str(i), "prompt_token_ids": [i] * size} for i, size in enumerate((5, 900, 6))]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n")
    output = tmp_path / "plan.arrow"
    arguments = ["plan", str(file), "--gpu", "a100-80g", "--kv-tokens", "160", "-o", str(output)]
    done = run(*arguments, "--on-error", "skip")
    assert done.exit_code == 0, done.output
    assert len(Plan.read(output)) == 2
    rejects = (tmp_path / "requests.jsonl.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [4, 2]
    assert json.loads(json.loads(rejects[1])["original"])["id"] == "1"
