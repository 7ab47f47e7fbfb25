"""Planning many files into a folder: the requests, the plan beside one piece, and bad input."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blendplan
from blendplan import BlendplanError, Plan
from blendplan.planfile.folder import MANIFEST, PlanFolder
from tests.planning.large.request_files import SMALL, lines, write_files, write_lines


def planned(files: Path | list[Path], folder: Path, **options: object) -> PlanFolder:
    """A plan made in this process, with runs and ranges of a few requests."""
    settings = {**SMALL, "processes": 1, "task_bytes": 20_000, **options}
    return blendplan.plan_files(files, folder, **settings)


def rows(plan: Plan) -> list[tuple[int, str, list[int]]]:
    columns = (plan.table.column(n) for n in ("source_row", "request_id", "prompt_token_ids"))
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def test_every_request_is_in_one_part_as_it_came(tmp_path: Path) -> None:
    some = lines(700)
    made = planned(write_files(tmp_path / "in", some, 5), tmp_path / "plan", replicas=3)
    made.verify()
    found = sorted(row for number in range(len(made)) for row in rows(made.part(number)))
    wanted = [(row, line["id"], line["prompt_token_ids"]) for row, line in enumerate(some)]
    assert found == wanted
    assert [source["rows"] for source in made.sources] == [140] * 5
    assert all(len(set(made.part(number).column("replica"))) == 1 for number in range(3))


def test_is_worth_what_the_plan_in_one_piece_is(tmp_path: Path) -> None:
    some = lines(1500)
    folder = planned(write_files(tmp_path / "in", some, 4), tmp_path / "plan", replicas=3)
    one = blendplan.plan(
        blendplan.read_requests(write_lines(tmp_path / "one.jsonl", some)), replicas=3, **SMALL
    )
    large, small = folder.metadata, one.metadata
    assert large.keys() == small.keys()
    for name in ("requests", "replicas", "gpu", "model", "policy", "seed", "step_prices"):
        assert large[name] == small[name]
    for name in ("prompt_tokens", "output_tokens"):
        assert large["predicted"][name] == small["predicted"][name]
    assert large["prefix_sharing"]["optimal"] == pytest.approx(small["prefix_sharing"]["optimal"])
    assert large["density"] == pytest.approx(small["density"], rel=1e-2)
    assert large["bound_s"] == pytest.approx(small["bound_s"], rel=1e-2)
    sums = [
        sum(part["predicted"]["makespan_s"] for part in metadata["parts"])
        for metadata in (large, small)
    ]
    assert sums[0] == pytest.approx(sums[1], rel=0.03)
    planned_sharing = [metadata["prefix_sharing"]["planned"] for metadata in (large, small)]
    assert planned_sharing[0] == pytest.approx(planned_sharing[1], abs=0.02)


def test_a_single_part_is_the_plan_in_one_piece(tmp_path: Path) -> None:
    some = lines(300)
    folder = planned(write_files(tmp_path / "in", some, 3), tmp_path / "plan")
    one = blendplan.plan(
        blendplan.read_requests(write_lines(tmp_path / "one.jsonl", some)), **SMALL
    )
    part = folder.part(0)
    assert part.table.equals(one.table)
    assert folder.metadata["bound_s"] == pytest.approx(one.metadata["bound_s"], rel=1e-2)
    assert folder.metadata["predicted"]["makespan_s"] == one.metadata["predicted"]["makespan_s"]


def test_the_same_plan_with_any_number_of_processes(tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", lines(400), 4)
    made = [
        planned(files, tmp_path / f"plan{processes}", replicas=2, processes=processes)
        for processes in (1, 2)
    ]
    assert made[0].files == made[1].files
    texts = [(one.path / MANIFEST).read_bytes() for one in made]
    assert texts[0] == texts[1]


@settings(max_examples=8)
@given(
    prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=2, max_size=80),
    files=st.integers(1, 4),
    replicas=st.integers(1, 4),
    policy=st.sampled_from(["blend", "dfs", "blendserve"]),
    seed=st.integers(0, 9),
)
def test_whatever_the_tree_all_is_planned_once_within_bounds(
    tmp_path_factory: pytest.TempPathFactory,
    prompts: list[list[int]],
    files: int,
    replicas: int,
    policy: str,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("random")
    outputs = np.random.default_rng(seed).integers(1, 300, len(prompts)).tolist()
    some = [
        {"id": f"r{row}", "prompt_token_ids": prompt, "output_tokens": output}
        for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
    ]
    options: dict[str, Any] = {"replicas": replicas, "policy": policy, "seed": seed}
    made = planned(
        write_files(folder / "in", some, files), folder / "plan", task_bytes=1, **options
    )
    made.verify()
    found = sorted(row for number in range(len(made)) for row in rows(made.part(number)))
    assert found == [(row, line["id"], line["prompt_token_ids"]) for row, line in enumerate(some)]
    metadata = made.metadata
    assert metadata["bound_s"] <= metadata["predicted"]["makespan_s"] * (1 + 1e-9)
    assert metadata["prefix_sharing"]["planned"] <= metadata["prefix_sharing"]["optimal"] + 1e-9
    one = blendplan.plan(
        blendplan.read_requests(write_lines(folder / "one.jsonl", some)), **options, **SMALL
    )
    assert metadata["prefix_sharing"]["optimal"] == pytest.approx(
        one.metadata["prefix_sharing"]["optimal"]
    )
    if metadata["predicted"]["preemptions"] == one.metadata["predicted"]["preemptions"] == 0:
        assert metadata["bound_s"] <= one.metadata["bound_s"] * (1 + 1e-9)


def test_requests_with_several_answers_stay_together(tmp_path: Path) -> None:
    some = [{**line, "n": 1 + row % 3} for row, line in enumerate(lines(200))]
    made = planned(write_files(tmp_path / "in", some, 2), tmp_path / "plan", replicas=2)
    made.verify()
    assert made.metadata["requests"] == 200
    assert made.metadata["sequences"] == sum(1 + row % 3 for row in range(200))


def test_equal_prompts_beyond_any_range_are_divided(tmp_path: Path) -> None:
    some = [
        {"id": str(row), "prompt_token_ids": [7] * 50, "output_tokens": 9} for row in range(900)
    ]
    made = planned(write_files(tmp_path / "in", some, 6), tmp_path / "plan", replicas=3)
    made.verify()
    assert [part["requests"] for part in made.metadata["parts"]] == [300] * 3
    assert made.metadata["prefix_sharing"]["optimal"] == pytest.approx(1 - 1 / 900)


def test_fewer_requests_than_replicas(tmp_path: Path) -> None:
    made = planned(write_files(tmp_path / "in", lines(3), 1), tmp_path / "plan", replicas=5)
    made.verify()
    assert len(made) == 3
    assert made.metadata["replicas"] == 5


def test_text_keeps_its_bodies_and_its_estimate(tmp_path: Path) -> None:
    some = [{"id": str(row), "prompt": f"say {row} " * 9, "max_tokens": 20} for row in range(90)]
    made = planned(write_files(tmp_path / "in", some, 3), tmp_path / "plan", replicas=2)
    assert made.metadata["lengths"]["estimated_prompts"]
    assert "90 of 90 requests are a guess" in made.metadata["lengths"]["note"]
    bodies = [
        json.loads(body.as_py())
        for number in range(2)
        for body in made.part(number).table.column("body")
    ]
    assert sorted(bodies, key=lambda body: int(body["id"])) == some


def test_ids_that_are_missing_name_file_and_line(tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", lines(6, ids=False), 2)
    made = planned(files, tmp_path / "plan")
    wanted = {f"part-0{file}.jsonl:{line}" for file in (0, 1) for line in (1, 2, 3)}
    assert set(made.part(0).table.column("request_id").to_pylist()) == wanted
    alone = planned(files / "part-00.jsonl", tmp_path / "alone")
    assert set(alone.part(0).table.column("request_id").to_pylist()) == {"1", "2", "3"}


def test_tables_and_lines_go_together_where_all_have_token_ids(tmp_path: Path) -> None:
    some = lines(40)
    folder = write_files(tmp_path / "in", some[:20], 1)
    pq.write_table(pa.Table.from_pylist(some[20:]), folder / "table.parquet")
    (folder / "empty.jsonl").touch()
    made = planned(folder, tmp_path / "plan")
    assert sorted(made.part(0).table.column("request_id").to_pylist()) == sorted(
        line["id"] for line in some
    )


def test_skipped_requests_are_told_with_their_files(tmp_path: Path) -> None:
    some = lines(30)
    folder = write_files(tmp_path / "in", some, 2)
    long = {"id": "long", "prompt_token_ids": [1] * 5000}
    again = {**some[3], "prompt_token_ids": [1, 2, 3]}
    with (folder / "part-01.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in (long, again))
        file.write("no request\n")
    made = planned(folder, tmp_path / "plan", on_error="skip")
    assert made.metadata["requests"] == 30
    rejected = made.part(0).rejected.to_pylist()
    assert [entry["source_row"] for entry in rejected] == [30, 31, 32]
    assert [entry["request_id"] for entry in rejected] == ["long", "r3", "part-01.jsonl:18"]
    entries = [json.loads(line) for line in (made.path / "rejects.jsonl").read_text().splitlines()]
    assert {(Path(entry["file"]).name, entry["line"]) for entry in entries} == {
        ("part-01.jsonl", 16), ("part-01.jsonl", 17), ("part-01.jsonl", 18),
    }  # fmt: skip
    assert sum("is that of" in entry["reason"] for entry in entries) == 1


def failing(files: Path | list[Path], folder: Path, **options: object) -> str:
    with pytest.raises(BlendplanError) as caught:
        planned(files, folder, **options)
    assert not folder.exists() or folder.is_file() or (folder / MANIFEST).exists()
    return str(caught.value)


def test_bad_requests_are_named_by_file_and_line(tmp_path: Path) -> None:
    some = lines(20)
    folder = write_files(tmp_path / "in", some, 2)
    second = folder / "part-01.jsonl"
    good = second.read_text()
    for bad, reason in (
        ('{"id": "x"}', "line 11"),
        (json.dumps({**some[2], "prompt_token_ids": [9]}), '"r2" is that of'),
        (json.dumps({"id": "x", "prompt_token_ids": [1] * 5000}), "5,000 tokens"),
    ):
        second.write_text(f"{good}{bad}\n")
        said = failing(folder, tmp_path / "plan")
        assert said.startswith(f"{second}, line 11")
        assert reason in said


def test_other_bad_input(tmp_path: Path) -> None:
    some = lines(10)
    folder = write_files(tmp_path / "in", some, 1)
    plan = tmp_path / "plan"
    assert "does not exist" in failing(tmp_path / "none.jsonl", plan)
    assert "matches no file" in failing(folder / "*.parquet", plan)
    (tmp_path / "void").mkdir()
    assert "without request files" in failing(tmp_path / "void", plan)
    damaged = tmp_path / "x.parquet"
    damaged.write_bytes(b"PAR1" + bytes(100))
    assert "cannot be read" in failing([folder, damaged], plan)
    text = write_lines(tmp_path / "text.jsonl", [{"id": "t", "prompt": "a text"}])
    table = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"prompt_token_ids": [[1, 2]]}), table)
    assert "holds text, whose tokens are only estimated" in failing([text, table], plan)
    assert "need all requests at once" in failing(folder, plan, lengths="sample:r.jsonl").replace(
        "needs", "need"
    )
    assert "states no output_tokens" in failing(text, plan, lengths="known")
    (tmp_path / "file").write_text("mine")
    assert "it is a file" in failing(folder, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(BlendplanError, match="holds other files"):
        planned(folder, folder)
    assert "does not exist" in failing(folder, tmp_path / "no" / "plan")


def test_an_earlier_plan_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "in", lines(60), 2)
    first = planned(folder, tmp_path / "plan", replicas=2)
    before = {file.name: digest(file) for file in first.path.iterdir()}
    (folder / "part-01.jsonl").write_text("no request\n")
    with pytest.raises(BlendplanError):
        planned(folder, tmp_path / "plan", replicas=2)
    assert {file.name: digest(file) for file in first.path.iterdir()} == before
    (folder / "part-01.jsonl").unlink()
    (first.path / ".work-left").mkdir()
    second = planned(folder, tmp_path / "plan")
    second.verify()
    assert {file.name for file in second.path.iterdir()} == {MANIFEST, second.files[0].file}


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_capped_prior_is_predicted_as_in_one_piece(tmp_path: Path) -> None:
    some = [{**line, "output_tokens": None, "max_tokens": 50} for line in lines(150)]
    folder = planned(write_files(tmp_path / "in", some, 3), tmp_path / "plan", replicas=2)
    requests = blendplan.read_requests(write_lines(tmp_path / "one.jsonl", some))
    one = blendplan.plan(requests, replicas=2, **SMALL)
    means = np.zeros(150)
    for number in range(2):
        part = folder.part(number)
        means[part.column("source_row")] = part.column("output_tokens_mean")
    wanted = np.zeros(150)
    wanted[one.column("source_row")] = one.column("output_tokens_mean")
    assert np.array_equal(means, wanted)
    assert folder.metadata["lengths"] == one.metadata["lengths"]
