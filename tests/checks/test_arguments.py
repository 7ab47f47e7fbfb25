"""Arguments of the public functions: whatever is given, the answer is a result or one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blendplan
from blendplan import BlendplanError, EngineLimits, Plan, Requests
from blendplan.checks.arguments import number, one_of, path, whole, whole_numbers
from blendplan.checks.ranges import RANGES
from blendplan.lengths.sample import choose_sample
from blendplan.tree.build import build_tree

VALUES: dict[str, object] = {
    "None": None,
    "true": True,
    "numpy bool": np.bool_(True),
    "minus one": -1,
    "zero": 0,
    "2^31": 2**31,
    "10^30": 10**30,
    "10^5000": 10**5000,
    "fraction": 1.5,
    "nan": float("nan"),
    "numpy nan": np.float32("nan"),
    "inf": float("inf"),
    "complex": 1j,
    "empty text": "",
    "text": "x",
    "digits": "1",
    "escape": "\x1b[31m\n",
    "null character": "a\0b",
    "half a pair": "\ud800",
    "long text": "x" * 100_000,
    "bytes": b"x",
    "list": [],
    "list of text": ["x"],
    "nested list": [[1], [[2]]],
    "dictionary": {},
    "dictionary of numbers": {1: 2},
    "array": np.array([1, 2]),
    "array of none": np.array(3),
    "array of fractions": np.array([0.5]),
    "object": object(),
    "function": lambda *_: None,
}


def _requests() -> Requests:
    prompts = [[*range(40), 100 + index] for index in range(6)]
    return blendplan.requests_from_lists(prompts, max_tokens=[8] * 6)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return blendplan.plan(_requests(), gpu="a100-80g", max_num_batched_tokens=64)


# The arguments of each function that are tried one after the other, next to good ones.
PLANNING = (
    *("requests", "gpu", "model", "replicas", "lengths", "preserve_sharing", "seed", "effort"),
    *("progress", "tp", "overlap", "cost", "kv_tokens", "max_num_seqs", "max_num_batched_tokens"),
    *("block_size", "gpu_memory_utilization", "kv_dtype", "no_such_argument"),
)
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "plan": (*PLANNING, "policy"),
    "compare": (*PLANNING, "policies"),
    "requests_from_lists": ("prompts", "output_tokens", "max_tokens", "ids"),
    "read_requests": ("path", "model_dir", "on_error", "rejects", "progress"),
    "write_requests": ("requests", "path", "rows"),
    "simulate": ("plan",),
    "replay": (
        *("plan", "engine", "output", "model", "engine_args", "order", "resume", "retries"),
        *("already", "pdmux", "step_log", "request_log", "remark", "progress"),
    ),
    "EngineLimits": ("kv_tokens", "max_num_seqs", "max_num_batched_tokens", "block_size"),
    "choose_sample": ("fraction", "seed"),
    "Plan.read": ("path",),
    "part": ("replica",),
    "live_policy": ("limits", "left"),
    "write": ("path",),
}


def _calls(plan: Plan, folder: Path) -> dict[str, Callable[..., Any]]:
    requests = _requests()
    lines = folder / "requests.jsonl"
    lines.write_text('{"prompt_token_ids": [1, 2]}\n')
    tree = build_tree(requests)
    job = {"requests": requests, "gpu": "a100-80g", "max_num_batched_tokens": 64}

    def with_defaults(function: Callable[..., Any], **good: Any) -> Callable[..., Any]:
        return lambda **given: function(**good | given)

    return {
        "plan": with_defaults(blendplan.plan, **job),
        "compare": with_defaults(blendplan.compare, **job, policies=["dfs"]),
        "requests_from_lists": with_defaults(blendplan.requests_from_lists, prompts=[[1], [2]]),
        "read_requests": with_defaults(blendplan.read_requests, path=lines),
        "write_requests": with_defaults(
            blendplan.write_requests, requests=requests, path=folder / "written.jsonl"
        ),
        "simulate": with_defaults(blendplan.simulate, plan=plan),
        "replay": with_defaults(blendplan.replay, plan=plan),
        "EngineLimits": with_defaults(EngineLimits, kv_tokens=64),
        "choose_sample": lambda **given: choose_sample(tree, requests, **given),
        "Plan.read": Plan.read,
        "part": plan.part,
        "live_policy": plan.live_policy,
        "write": plan.write,
    }


CASES = [(name, argument) for name, arguments in ARGUMENTS.items() for argument in arguments]


@pytest.mark.parametrize(("function", "argument"), CASES)
def test_only_one_line_comes_out(
    function: str, argument: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some of the values are file names
    refused = 0
    for kind, value in VALUES.items():
        call = _calls(plan, tmp_path)[function]
        try:
            call(**{argument: value})
        except BlendplanError as error:
            refused += 1
            line = str(error)
            assert line.isprintable(), (kind, line)
            assert len(line) < 500, (kind, line)
    assert refused > len(VALUES) / 3


@pytest.mark.parametrize("name", RANGES)
def test_whole_numbers_within_their_limits(name: str) -> None:
    least, most = RANGES[name]
    for good in (least, most, np.int64(most), np.uint8(max(least, 1))):
        assert type(whole(name, good)) is int
    for bad in (least - 1, most + 1, float(most), str(least), True, None):
        with pytest.raises(BlendplanError, match=f"^{name} is .*; give a whole number from"):
            whole(name, bad)


def test_the_value_and_what_is_right_are_said() -> None:
    with pytest.raises(BlendplanError, match=r"^x is NaN; give a number above 0 to 1$"):
        number("x", float("nan"), 0, 1, above_least=True)
    with pytest.raises(BlendplanError, match=r"did you mean 'fail'"):
        one_of("on_error", "fial", ("fail", "skip"))
    with pytest.raises(BlendplanError, match=r"rows\[1\] is 7; "):
        whole_numbers("rows", [1, 7], 0, 6)
    with pytest.raises(BlendplanError, match="no null character"):
        path("path", "a\0b")


def test_a_mistyped_argument_gets_the_near_one() -> None:
    with pytest.raises(BlendplanError, match="did you mean 'max_num_seqs'"):
        blendplan.plan(_requests(), gpu="h200", max_num_seq=3)


def test_numpy_numbers_make_the_same_plan(tmp_path: Path) -> None:
    plain = blendplan.plan(_requests(), gpu="h200", max_num_seqs=8, seed=3, tp=1, overlap=1.0)
    scalars: dict[str, Any] = {
        "max_num_seqs": np.int32(8),
        "seed": np.uint64(3),
        "tp": np.int8(1),
        "overlap": np.float32(1),
    }
    numpy = blendplan.plan(_requests(), gpu="h200", **scalars)
    numpy.write(tmp_path / "plan.arrow")
    assert numpy.metadata == plain.metadata
    assert numpy.table.equals(plain.table)
