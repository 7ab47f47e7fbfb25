"""Runs, ranges and repeated ids against slow and obvious ways, on random prompts."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.cost.machine import machine
from blendplan.planning.large.ids import hashes_of, repeated, write_id_hashes
from blendplan.planning.large.job import Job
from blendplan.planning.large.ranges import cut_ranges, load_range
from blendplan.planning.large.reading import Run, groups_of, read_group
from blendplan.planning.large.spill import batch_of, spilling
from blendplan.planning.options import PlanOptions
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.inputs import find_inputs
from blendplan.requests.shape import AS_IT_IS
from tests.planning.large.request_files import SMALL

TARGET = machine(**{name: value for name, value in SMALL.items() if name != "effort"})
HOW = PlanOptions(1, "auto", 0.99, 0, 0, True, None)

prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=60)


def runs_of(folder: Path, files: list[list[list[int]]], task_bytes: int) -> list[Run]:
    """The runs of files with these prompts, one task for each file."""
    (folder / "in").mkdir()
    for number, some in enumerate(files):
        lines = (
            json.dumps({"id": f"{number}-{row}", "prompt_token_ids": prompt})
            for row, prompt in enumerate(some)
        )
        (folder / "in" / f"{number:03d}.jsonl").write_text("\n".join(lines))
    job = Job(folder, TARGET, None, False, AS_IT_IS, "blend", HOW, task_bytes)
    inputs = find_inputs([str(folder / "in")])
    return [run for group in groups_of(inputs, 1) for run in read_group(job, group).runs]


@settings(max_examples=25)
@given(files=st.lists(prompts, min_size=1, max_size=5), range_bytes=st.integers(50, 4000))
def test_ranges_are_stretches_of_the_sorted_prompts(
    tmp_path_factory: object, files: list[list[list[int]]], range_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")  # type: ignore[attr-defined]
    runs = runs_of(folder, files, 1)
    ranges = cut_ranges(runs, range_bytes, np.zeros(0, np.int64))
    found: list[tuple[list[int], int]] = []
    for one in ranges:
        loaded = load_range(one, False)
        found += sorted(
            (loaded.prompt(row).tolist(), int(loaded.source_row[row])) for row in range(len(loaded))
        )
    wanted = sorted(
        (prompt, (number << 40) + row)
        for number, some in enumerate(files)
        for row, prompt in enumerate(some)
    )
    assert found == wanted


def test_a_prefix_that_all_share_does_not_keep_ranges_from_being_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [[[1] * 300 + rng.integers(0, 9, 5).tolist() for _ in range(640)] for _ in range(3)]
    runs = runs_of(tmp_path, files, 1)
    total = sum(int(run.batch_bytes.sum()) for run in runs)
    ranges = cut_ranges(runs, total // 5, np.zeros(0, np.int64))
    sizes = [len(load_range(one, False)) for one in ranges]
    assert sum(sizes) == 3 * 640
    assert len(sizes) == 5
    assert max(sizes) < 640


def test_dropped_requests_are_in_no_range(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [[[row % 7, row] for row in range(100)]], 1)
    dropped = np.array([3, 50, 99])
    (one,) = cut_ranges(runs, 1 << 20, dropped)
    left = load_range(one, False).source_row
    assert sorted(left) == sorted(set(range(100)) - {3, 50, 99})


def spilled(folder: Path, ids: list[list[str]]) -> tuple[list[Path], list[Path]]:
    hashes, runs = [], []
    place = 0
    for number, some in enumerate(ids):
        column = pa.array(some, pa.large_string())
        hashes.append(folder / f"{number}.npy")
        write_id_hashes(column, hashes[-1])
        requests = requests_from_lists([[1]] * len(some))
        columns = batch_of(requests, np.arange(len(some))).columns
        columns[0] = column
        columns[1] = pa.array(np.arange(place, place + len(some)))
        runs.append(folder / f"{number}.arrow")
        with spilling(runs[-1]) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=writer_schema()))
        place += len(some)
    return hashes, runs


def writer_schema() -> pa.Schema:
    from blendplan.planning.large.spill import SPILLED

    return SPILLED


@settings(max_examples=40)
@given(
    ids=st.lists(
        st.lists(st.text("ab\u00fc", min_size=1, max_size=3), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_repeated_ids_are_those_that_a_dictionary_finds(
    tmp_path_factory: object, ids: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("ids")  # type: ignore[attr-defined]
    first: dict[str, int] = {}
    wanted = []
    for place, name in enumerate(name for some in ids for name in some):
        if first.setdefault(name, place) != place:
            wanted.append((place, first[name], name))
    found = repeated(*spilled(folder, ids))
    assert [(one.place, one.earlier, one.id) for one in found] == wanted


def test_equal_hashes_of_other_ids_are_no_repetition(tmp_path: Path) -> None:
    hashes, runs = spilled(tmp_path, [["a", "b"], ["c"]])
    same = hashes_of(pa.array(["a"], pa.large_string()))
    np.save(hashes[1], same)  # as if "c" had the hash of "a"
    assert repeated(hashes, runs) == []


def test_hashes_differ_where_ids_do() -> None:
    ids = pa.array([f"request-{number}" for number in range(20_000)], pa.large_string())
    assert len(np.unique(hashes_of(ids))) == 20_000
    assert np.array_equal(hashes_of(ids.slice(5, 3)), hashes_of(ids)[5:8])
