"""Plans that know a sample only run on engines that are told the true lengths."""

from pathlib import Path

import numpy as np
import pytest

from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.proving.jobs import job
from blendplan.proving.sampled import (
    sample_rows,
    with_true_lengths,
    write_sample,
)
from blendplan.replaying.run import replay
from blendplan.requests.columns import Requests, without_lengths


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Requests:
    path = tmp_path_factory.mktemp("job") / "job.jsonl"
    return job(path, "memory", 150, longest=768, vocabulary=500, seed=0)


@pytest.mark.parametrize(("count", "expected"), [(60, 3), (600, 30), (5_000, 200)])
def test_a_sample_is_small(count: int, expected: int, tmp_path: Path) -> None:
    made = job(tmp_path / "job.jsonl", "chats", count, longest=64, vocabulary=500, seed=0)
    rows = sample_rows(made)
    assert len(rows) == expected
    assert np.all(np.diff(rows) > 0)


def test_the_engine_generates_true_lengths_that_the_plan_does_not_know(
    requests: Requests, tmp_path: Path
) -> None:
    write_sample(requests, tmp_path / "sample.jsonl")
    made = plan(
        without_lengths(requests),
        gpu="l4",
        kv_tokens=6144,
        max_model_len=2048,
        lengths=f"sample:{tmp_path / 'sample.jsonl'}",
    )
    told = with_true_lengths(made, requests)
    assert told.metadata["lengths"] == made.metadata["lengths"]
    assert np.array_equal(told.column("output_tokens_mean"), made.column("output_tokens_mean"))
    assert replay(told).tally.output_tokens == int(requests.output_tokens.sum())
    told.write(tmp_path / "told.arrow")
    known = Plan.read(tmp_path / "told.arrow")
    by_source = known.column("output_tokens_known")[np.argsort(known.column("source_row"))]
    assert by_source.tolist() == requests.output_tokens.tolist()
