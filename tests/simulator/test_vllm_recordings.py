"""The slow and the simulated engine against recorded steps of the real vLLM scheduler."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvGroup, KvLayout
from tests.oracles.lockstep import (
    FastEngine,
    assert_same_state,
    input_order,
    odd_prices,
    workload_of,
)
from tests.oracles.slow_engine import InputOrder, SlowEngine

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = sorted((DATA / "vllm_steps").glob("*.json.gz"))
# The scheduler over layouts of the KV cache with several groups, windows or states.
OF_GROUPS = sorted((DATA / "vllm_groups").glob("*.json.gz"))


@pytest.fixture(
    scope="module", params=[*RECORDINGS, *OF_GROUPS], ids=lambda path: path.name.split(".")[0]
)
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One recording."""
    run: dict[str, Any] = json.loads(gzip.decompress(request.param.read_bytes()))
    return run


def layout_of(recorded: dict[str, Any]) -> KvLayout:
    """The layout of the recorded KV cache; sizes in bytes do not matter to steps."""
    plain = {"kind": "full", "reach": 0, "block_tokens": recorded.get("block_size")}
    groups = recorded.get("groups", [plain])
    return KvLayout(tuple(KvGroup(layers=1, page_bytes=1, **group) for group in groups))


def slow_engine(recorded: dict[str, Any]) -> SlowEngine:
    return SlowEngine(
        recorded["prompts"],
        recorded["output_tokens"],
        blocks=recorded["usable_blocks"],
        layout=layout_of(recorded),
        max_num_batched_tokens=recorded["max_num_batched_tokens"],
        max_num_seqs=recorded["max_num_seqs"],
        async_scheduling=recorded.get("async_scheduling", False),
    )


def test_recordings_cover_the_hard_cases() -> None:
    runs = [json.loads(gzip.decompress(path.read_bytes())) for path in RECORDINGS]
    steps = [step for run in runs for step in run["steps"]]
    assert len(runs) == 27
    assert sum(len(step["preempted"]) for step in steps) > 100
    assert sum(cached > 0 for step in steps for _, cached in step["admitted"]) > 100
    assert any(len(step["preempted"]) > 1 for step in steps)
    answers = [max(run.get("answers", [1])) for run in runs]
    assert any(number > run["max_num_seqs"] for number, run in zip(answers, runs, strict=True))
    limits = [run["max_num_batched_tokens"] for run in runs]
    assert any(
        max(map(len, run["prompts"])) > limit for run, limit in zip(runs, limits, strict=True)
    )


def test_recordings_cover_every_kind_of_group() -> None:
    runs = [json.loads(gzip.decompress(path.read_bytes())) for path in OF_GROUPS]
    for asynchronous in (False, True):
        mine = [run for run in runs if run["async_scheduling"] is asynchronous]
        assert len(mine) == 20
        groups = [group for run in mine for group in run["groups"]]
        assert {group["kind"] for group in groups} == {"full", "sliding", "chunked", "state"}
        assert {group["checkpoint_tokens"] for group in groups} == {0, 1, 8}
        assert any(group["most_blocks"] for group in groups)
        steps = [step for run in mine for step in run["steps"]]
        assert sum(len(step["preempted"]) for step in steps) > 100
        assert sum(cached > 0 for step in steps for _, cached in step["admitted"]) > 100
    # Blocks larger than a step, of different sizes, and more than two kinds of groups.
    assert any(
        max(group["block_tokens"] for group in run["groups"]) > run["max_num_batched_tokens"]
        for run in runs
    )
    assert any(len({group["block_tokens"] for group in run["groups"]}) > 1 for run in runs)
    assert any(len({group["bucket"] for group in run["groups"]}) > 2 for run in runs)


def test_slow_engine_takes_the_recorded_steps(recorded: dict[str, Any]) -> None:
    slow = slow_engine(recorded)
    policy = slow.policy
    assert isinstance(policy, InputOrder)
    for number, step in enumerate(recorded["steps"]):
        waiting_before = [*slow.waiting_again, *policy.waiting]
        taken = slow.step()
        assert [list(entry) for entry in taken.scheduled] == step["scheduled"], number
        assert [list(entry) for entry in taken.admitted] == step["admitted"], number
        assert sorted(taken.preempted + taken.spent) == step["preempted"], number
        assert taken.running == step["running"], number
        assert taken.free_blocks == step["free_blocks"], number
        # A preempted request whose last token is under way stands in vLLM's queue until it comes.
        waiting = [request for request in step["waiting"] if request not in taken.spent]
        assert [*slow.waiting_again, *policy.waiting] == waiting, (number, waiting_before)
    assert slow.finished == len(recorded["prompts"])
    for request, end in enumerate(recorded["finished"]):
        assert slow.cached_tokens[request] == end["cached"]
        assert slow.generated[request] == end["output"] == recorded["output_tokens"][request]


def test_simulated_engine_takes_the_recorded_steps(recorded: dict[str, Any]) -> None:
    slow = slow_engine(recorded)
    prompts, outputs = recorded["prompts"], recorded["output_tokens"]
    layout = layout_of(recorded)
    block_size = layout.block_tokens
    settings = EngineLimits(
        recorded["usable_blocks"] * block_size,
        recorded["max_num_seqs"],
        recorded["max_num_batched_tokens"],
        block_size,
        recorded.get("async_scheduling", False),
    )
    fast = FastEngine(
        workload_of(prompts, outputs, layout.hash_tokens),
        settings,
        input_order(len(prompts), settings),
        odd_prices(settings, 1.0),
        layout,
    )
    spent = 0
    for number, step in enumerate(recorded["steps"]):
        done = fast.step()
        spent += len(slow.step().spent)
        assert_same_state(fast, slow)
        # What the recording itself says of the state after this step.
        ended = [r for r, end in enumerate(recorded["finished"]) if end["step"] == number]
        assert fast.running == [r for r in step["running"] if r not in ended]
        assert done == (number + 1 == len(recorded["steps"]))
    preempted = sum(len(step["preempted"]) for step in recorded["steps"])
    assert fast.count("preemptions") == preempted - spent
    assert fast.engine.cached_tokens.tolist() == [end["cached"] for end in recorded["finished"]]
