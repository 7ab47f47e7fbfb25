"""A plan that runs identical requests once answers all of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.planfile.export import export
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.replaying.journal import Journal
from blendplan.replaying.run import replay
from tests.cli.cli_runs import answer, error_line, run
from tests.replaying.replay_jobs import lines_of

GPU = ("--gpu", "l4", "--kv-tokens", "4000", "--effort", "0")
# Of 40 rows, 8 texts; one row has none.
WORDS = [f"text {row % 8} " * 5 for row in range(40)]
TABLE = pa.table(
    {"doc": list(range(100, 140)), "text": [None, *WORDS[1:]], "kind": list("abcd") * 10}
)
SHAPE = ("--prompt-column", "text", "--id-column", "doc", "--max-tokens", "4")
SURE = (*SHAPE, "--param", "temperature=0", "--dedupe", "--on-error", "skip")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "r.parquet")
    said = answer("plan", tmp_path / "r.parquet", *SURE, *GPU, "-o", tmp_path / "plan.arrow",
                  "--replicas", "1")  # fmt: skip
    assert said["requests"] == 8
    repeats = said["repeats"]
    assert repeats["requests"] == 31
    assert 0 < repeats["output_tokens"] <= 31 * 4
    return tmp_path / "plan.arrow"


def body_of(line: dict[str, Any]) -> Any:
    response = line["response"]
    return response if response is None else response["body"]


@pytest.mark.parametrize("order", ["input", "finish"])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_all_get_the_answer(made: Path, tmp_path: Path, order: str, suffix: str) -> None:
    output = tmp_path / f"results.{suffix}"
    said = answer("replay", made, "-o", output, "--order", order)
    assert said["finished"] == 8
    found = lines_of(output)
    rows = [int(line["id"].removeprefix("batch_req_")) for line in found]
    assert sorted(rows) == list(range(40))
    if order == "input":
        assert rows == list(range(40))
    by_row = dict(zip(rows, found, strict=True))
    assert all(int(by_row[row]["custom_id"]) == 100 + row for row in range(40))
    assert by_row[0]["error"] is not None
    for row in range(1, 40):
        assert body_of(by_row[row]) == body_of(by_row[row % 8 or 8])
    if suffix == "parquet":
        table = pq.read_table(output)
        for place, row in enumerate(table.column("source_row").to_pylist()):
            if row:
                assert table.column("kind")[place].as_py() == "abcd"[row % 4]
                assert table.column("source_text")[place].as_py() == WORDS[row]
    assert answer("replay", made, "-o", output, "--order", order, "--resume")["finished"] == 0


def test_a_kill_while_results_are_put_together_repeats_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results.jsonl"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            replay(Plan.read(made), output=output)
    assert replay(Plan.read(made), output=output, resume=True).tally.already_done == 8
    assert [line["custom_id"] for line in lines_of(output)][1:] == list(range(101, 140))


def test_the_bound_knows_and_sampling_runs_them_all(made: Path, tmp_path: Path) -> None:
    whole = answer("plan", tmp_path / "r.parquet", *SHAPE, "--on-error", "skip", "--dedupe", *GPU,
                   "-o", tmp_path / "whole.arrow")  # fmt: skip
    assert whole["requests"] == 39
    assert whole["repeats"] is None
    once = Plan.read(made)
    once.verify(made)
    assert once.metadata["bound_s"] < Plan.read(tmp_path / "whole.arrow").metadata["bound_s"]
    said = answer("replay", made, "--limit", "3", "-o", tmp_path / "trial.jsonl")
    assert said["finished"] == len(lines_of(tmp_path / "trial.jsonl")) == 3
    with pytest.raises(BlendplanError, match="plan without --dedupe"):
        export(once, tmp_path / "ordered.jsonl")


def test_replicas_divide_what_runs(made: Path, tmp_path: Path) -> None:
    words = ("plan", tmp_path / "r.parquet", *SURE, *GPU, "--replicas", "2")
    answer(*words, "-o", tmp_path / "two.arrow")
    parts = [Plan.read(tmp_path / "two.arrow").part(replica) for replica in (0, 1)]
    outputs = [tmp_path / f"{replica}.jsonl" for replica in (0, 1)]
    for part, output in zip(parts, outputs, strict=True):
        replay(part, output=output)
    names = [int(line["custom_id"]) for output in outputs for line in lines_of(output)]
    assert sorted(names) == list(range(100, 140))
    assert "looks through requests in memory" in error_line(run(*words, "-o", f"{tmp_path}/p/"))


def test_the_library_takes_what_run_once_gives(tmp_path: Path) -> None:
    from blendplan import read_requests, run_once

    pq.write_table(TABLE.slice(1), tmp_path / "r.parquet")
    requests = read_requests(
        tmp_path / "r.parquet", prompt_column="text", max_tokens=4, parameters={"seed": 1}
    )
    once = plan(run_once(requests), gpu="l4", effort=0)
    assert once.metadata["repeats"]["requests"] == 31
