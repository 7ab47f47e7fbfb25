"""The example of a serving stack of one's own."""

import random
import runpy
from pathlib import Path

import pytest

from tests.replay_jobs import small_plan, write_requests_file

EXAMPLE = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "custom_serving.py"))


@pytest.mark.parametrize("policy", ["blend", "blendserve", "dfs"])
@pytest.mark.parametrize("seed", range(3))
def test_every_request_is_served_whatever_the_lengths(
    tmp_path: Path, policy: str, seed: int
) -> None:
    made = small_plan(write_requests_file(tmp_path / "requests.jsonl", 60, seed), policy=policy)
    engine = EXAMPLE["CountingEngine"](made.settings.kv_tokens // 3, made.settings.max_num_seqs)
    count = EXAMPLE["serve"](made, engine, random.Random(seed))
    assert count["finished"] == len(made)
    assert not engine.running
    assert not engine.waiting
