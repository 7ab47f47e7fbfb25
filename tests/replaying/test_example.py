"""The examples of a serving stack of one's own and of a tiny model."""

import json
import random
import runpy
from pathlib import Path

import pytest

from blendplan.hardware.lookup import model_spec
from blendplan.requests.read import read_requests
from tests.replaying.replay_jobs import small_plan, write_requests_file

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = runpy.run_path(str(EXAMPLES / "custom_serving.py"))


@pytest.mark.parametrize("policy", ["blend", "blendserve", "dfs"])
@pytest.mark.parametrize("seed", range(3))
def test_every_request_is_served_whatever_the_lengths(
    tmp_path: Path, policy: str, seed: int
) -> None:
    made = small_plan(write_requests_file(tmp_path / "requests.jsonl", 60, seed), policy=policy)
    engine = EXAMPLE["CountingEngine"](made.limits.kv_tokens // 3, made.limits.max_num_seqs)
    count = EXAMPLE["serve"](made, engine, random.Random(seed))
    assert count["finished"] == len(made)
    assert not engine.running
    assert not engine.waiting


def test_the_tiny_model_counts_the_tokens_of_its_text(tmp_path: Path) -> None:
    job = tmp_path / "requests.jsonl"
    question = "What did the patient teacher of geometry say of the patient pupil? " * 4
    lines = [{"prompt": question}, {"messages": [{"role": "user", "content": question}]}]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runpy.run_path(str(EXAMPLES / "tiny_model.py"))["write_model"](job, tmp_path / "tiny")
    text, chat = read_requests(job, model_dir=tmp_path / "tiny").prompt_tokens.tolist()
    assert 4 <= text < len(question) / 2
    assert chat == text + 2  # <user> and <assistant>
    assert model_spec(str(tmp_path / "tiny")).layer_count == 2
