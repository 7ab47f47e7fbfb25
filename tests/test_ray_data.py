"""A dataset of prompts comes back with answers, in a real pipeline of Ray Data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.replaying.cluster.machines import ROOT, environment

pytest.importorskip("ray.data")


def test_a_dataset_comes_back_with_answers_beside_its_columns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ray_data", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    rows = told["rows"]
    assert [row["label"] for row in rows] == list(range(60))
    for row in rows:
        assert row["question"] == [7, 8, 9, *range(20, 20 + row["label"] % 5)]
        assert row["answer"] == ""
        assert row["error"] is None
        usage = json.loads(row["response"])["usage"]
        assert usage["prompt_tokens"] == len(row["question"])
        assert usage["completion_tokens"] == 5 + row["label"] % 3 == row["max_tokens"]
    # The same folder goes on with the same rows and arguments, and with no others.
    assert told["again"]
    fewer, changed, option, asked, planning, column, file = told["refused"]
    assert "other arguments (model, prompt_column changed since)" in asked
    assert "other arguments (nonsense changed since)" in planning
    assert 'no column "nope"' in column
    assert "rows.parquet: file exists; choose another place" in file
    assert "was begun with another dataset" in fewer
    assert "was begun with another dataset" in changed
    assert 'takes no "replicas_max"' in option
