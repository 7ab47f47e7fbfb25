"""Jobs of a proof: what they hold, whatever the size of the KV cache."""

from pathlib import Path

import numpy as np
import pytest

from blendplan.proving.jobs import FIRST_ID, JOBS, job

LONGEST = 768


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("longest", [64, LONGEST, 8192])
def test_requests_fit_and_are_the_same_each_time(name: str, longest: int, tmp_path: Path) -> None:
    made = [
        job(tmp_path / f"{turn}.jsonl", name, 60, longest=longest, vocabulary=500, seed=3)
        for turn in range(2)
    ]
    assert len(made[0]) == pytest.approx(60, abs=2)
    whole = made[0].prompt_tokens_of(np.arange(len(made[0]))) + made[0].output_tokens
    assert whole.max() <= longest
    assert made[0].output_tokens.min() >= 1
    assert made[0].token_ids.min() >= FIRST_ID
    assert made[0].token_ids.max() < 500
    assert np.array_equal(made[0].token_ids, made[1].token_ids)


def test_another_seed_makes_another_job(tmp_path: Path) -> None:
    first, second = (
        job(tmp_path / f"{seed}.jsonl", "memory", 50, longest=LONGEST, vocabulary=500, seed=seed)
        for seed in (0, 1)
    )
    assert not np.array_equal(first.output_tokens, second.output_tokens)


def test_a_compute_heavy_job_has_longer_prompts_for_its_outputs(tmp_path: Path) -> None:
    def outputs_per_prompt_token(name: str) -> float:
        made = job(tmp_path / name, name, 300, longest=LONGEST, vocabulary=500, seed=0)
        return float(made.output_tokens.sum() / len(made.token_ids))

    assert outputs_per_prompt_token("memory") > 3 * outputs_per_prompt_token("compute")
