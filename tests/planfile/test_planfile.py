"""The plan file: what goes in comes out, and nothing else passes for a plan."""

import json
import os
import random
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendplan.errors import BlendplanError
from blendplan.planfile.check import column_digest
from blendplan.planfile.columns import SCHEMA
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.requests.columns import Requests
from tests.oracles.lockstep import requests_of

ENGINE: dict[str, Any] = {"kv_tokens": 4096, "max_num_seqs": 8, "max_num_batched_tokens": 128}


def job() -> Requests:
    """Sixty requests of three families with common prefixes, some of them equal."""
    chance = random.Random(5)
    stems = [[chance.randrange(1000) for _ in range(length)] for length in (20, 70, 150)]
    prompts = [
        stems[row % 3] + [chance.randrange(1000) for _ in range(chance.randrange(40))]
        for row in range(60)
    ]
    return requests_of(prompts, [chance.randrange(1, 200) for _ in range(60)])


def job_of_text() -> Requests:
    """The same requests as if they had been read as text with the built-in estimate."""
    bodies = [
        json.dumps({"custom_id": str(row), "body": {"prompt": "ü" * row, "top_p": row / 60}})
        for row in range(60)
    ]
    encoded = pa.array([body.encode() for body in bodies], pa.large_binary())
    return replace(job(), bodies=encoded, estimated_tokens=True, sha256="ab" * 32)


@pytest.fixture(scope="module")
def made() -> Plan:
    """A plan in memory."""
    return plan(job(), gpu="a100-80g", policy="blendserve", **ENGINE)


@pytest.fixture
def path(made: Plan, tmp_path: Path) -> Path:
    """A plan file."""
    file = tmp_path / "plan.arrow"
    made.write(file)
    return file


def refusal(attempt: Callable[[], Any]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(BlendplanError) as refused:
        attempt()
    line = str(refused.value)
    assert line and "\n" not in line
    return line


def read_and_verify(file: Path) -> Plan:
    found = Plan.read(file)
    found.verify()
    return found


def metadata_of(file: Path) -> dict[str, Any]:
    with pa.OSFile(str(file), "rb") as source, pa.ipc.open_file(source) as reader:
        described: dict[str, Any] = json.loads(reader.schema.metadata[b"blendplan"])
    return described


def write_raw(file: Path, table: pa.Table, described: dict[str, Any] | bytes | None) -> None:
    """Write an Arrow file without asking blendplan."""
    text = json.dumps(described).encode() if isinstance(described, dict) else described
    schema = table.schema.with_metadata(None if text is None else {b"blendplan": text})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The table with other values in one column."""
    field = table.schema.field(name)
    if pa.types.is_dictionary(field.type):
        column = pa.array(values, pa.string()).dictionary_encode().cast(field.type)
    else:
        column = pa.array(values, field.type)
    return table.set_column(table.schema.get_field_index(name), field, column)


def other_value(value: Any) -> Any:
    """Some value of the same type that is not this one."""
    match value:
        case None:
            return None
        case "compute":
            return "memory"
        case "memory":
            return "compute"
        case str():
            return value + "x"
        case bytes():
            return value + b"x"
        case list():
            return [*value[:-1], value[-1] + 1]
        case float():
            return float(np.nextafter(np.float32(value), np.float32(np.inf)))
        case _:
            return value + 1


def test_round_trip(made: Plan, path: Path) -> None:
    found = Plan.read(path)
    assert found.table.equals(made.table)
    assert found.table.schema == SCHEMA
    digests = {key: found.metadata[key] for key in ("columns_sha256", "metadata_sha256")}
    assert found.metadata == made.metadata | digests
    assert found.limits == made.limits
    assert len(found) == len(made) == 60
    assert len(found.verify()) == len(made.verify()) == 5


def test_round_trip_of_text_keeps_every_body(tmp_path: Path) -> None:
    requests = job_of_text()
    plan(requests, gpu="a100-80g", **ENGINE).write(tmp_path / "plan.arrow")
    found = read_and_verify(tmp_path / "plan.arrow")
    assert found.table["prompt_token_ids"].null_count == 60
    assert found.metadata["lengths"]["estimated_prompts"] is True
    assert found.metadata["request_file_sha256"] == "ab" * 32
    assert requests.bodies is not None
    for row, body in zip(found.column("source_row"), found.table["body"].to_pylist(), strict=True):
        assert body == requests.bodies[int(row)].as_py()


def test_columns_are_those_of_the_requests(made: Plan) -> None:
    requests = job()
    table = made.table
    rows = made.column("source_row")
    assert sorted(rows) == list(range(60))
    assert table["position"].to_pylist() == list(range(60))
    assert table["request_id"].to_pylist() == [str(row) for row in rows]
    assert [len(ids) for ids in table["prompt_token_ids"].to_pylist()] == table[
        "prompt_tokens"
    ].to_pylist()
    for row, ids in zip(rows, table["prompt_token_ids"].to_pylist(), strict=True):
        assert ids == requests.prompt(int(row)).tolist()
    assert table["output_tokens_mean"].to_pylist() == requests.output_tokens[rows].tolist()
    assert table["body"].null_count == 60
    partition = made.column("memory_left_tokens") + made.column("memory_right_tokens")
    assert np.all(np.abs(partition - 4096) <= 1)
    assert set(table["side"].to_pylist()) == {"compute", "memory"}
    assert [("compute", "memory")[side] for side in made.sides()] == table["side"].to_pylist()


def test_batches_are_the_admissions_of_each_step(made: Plan) -> None:
    batches = list(made.batches())
    steps = [step for step, _ in batches]
    assert steps == sorted(set(steps)) and steps[0] == 0
    assert pa.concat_tables([rows for _, rows in batches]).equals(made.table)
    for step, rows in batches:
        assert rows.num_rows > 0 and set(rows["batch"].to_pylist()) == {step}


def test_same_input_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.arrow"
    plan(job(), gpu="a100-80g", policy="blendserve", **ENGINE).write(again)
    assert again.read_bytes() == path.read_bytes()
    read_and_verify(again).write(again)
    assert again.read_bytes() == path.read_bytes()


def test_same_bytes_in_another_process(path: Path, tmp_path: Path) -> None:
    script = (
        "from tests.planfile.test_planfile import ENGINE, job, plan\n"
        "plan(job(), gpu='a100-80g', policy='blendserve', **ENGINE).write('other.arrow')\n"
    )
    root = Path(__file__).parents[2]
    roots = os.pathsep.join([str(root), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": roots, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "other.arrow").read_bytes() == path.read_bytes()


def test_metadata_names_no_machine_and_no_place(path: Path) -> None:
    described = metadata_of(path)
    text = json.dumps(described)
    assert str(path.parent) not in text and str(Path.cwd()) not in text
    assert socket.gethostname() not in text
    keys = set(described) | set(described["engine"]) | set(described["predicted"])
    assert not {key for key in keys if "time" in key or "date" in key or "host" in key}


def test_digest_looks_at_content_not_at_batches(made: Plan) -> None:
    pieces = [made.table.slice(at, 7) for at in range(0, 60, 7)]
    assert column_digest(pa.concat_tables(pieces)) == column_digest(made.table)
    assert column_digest(made.table.combine_chunks()) == column_digest(made.table)
    assert column_digest(made.table.slice(1)) != column_digest(made.table)


@pytest.mark.parametrize("name", SCHEMA.names)
def test_altered_value_in_any_column_is_found(name: str, path: Path) -> None:
    described, table = metadata_of(path), Plan.read(path).table
    for row in (0, 33, 59):
        values = table[name].to_pylist()
        where_null = {
            "body": b"new",
            "output_tokens_outcomes": [5.0] * 10,
            "max_tokens": 7,
        }
        values[row] = where_null.get(name) or other_value(values[row])
        write_raw(path, with_column(table, name, values), described)
        assert "fails verification" in refusal(lambda: read_and_verify(path))


def test_values_moved_within_a_column_are_found(path: Path) -> None:
    described, table = metadata_of(path), Plan.read(path).table
    for name in ("request_id", "prompt_token_ids"):
        values = table[name].to_pylist()
        write_raw(path, with_column(table, name, [*values[1:], values[0]]), described)
        assert "fails verification" in refusal(lambda: read_and_verify(path))


def test_string_boundaries_count(made: Plan) -> None:
    """The same bytes cut at other places are another content."""
    values = ["ab", "c", *map(str, range(58))]
    one = with_column(made.table, "request_id", values)
    other = with_column(made.table, "request_id", ["a", "bc", *values[2:]])
    assert column_digest(one) != column_digest(other)
    first = made.table["prompt_token_ids"].to_pylist()
    moved = [[*first[0], first[1][0]], first[1][1:], *first[2:]]
    assert column_digest(with_column(made.table, "prompt_token_ids", moved)) != column_digest(
        made.table
    )


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([*range(1, 60)], id="dropped"),
        pytest.param([*range(60), 59], id="repeated"),
        pytest.param([0, *range(59)], id="one-for-another"),
        pytest.param([1, 0, *range(2, 60)], id="swapped"),
        pytest.param([], id="all-dropped"),
    ],
)
def test_altered_rows_are_found(rows: list[int], made: Plan, path: Path) -> None:
    table = made.table.take(pa.array(rows, pa.int64()))
    write_raw(path, table, metadata_of(path))
    assert "fails verification" in refusal(lambda: read_and_verify(path))
    # Without checksums the content gives it away.
    assert "fails verification" in refusal(Plan(table, made.metadata).verify)


@pytest.mark.parametrize(
    ("column", "row", "value", "line"),
    [
        ("request_id", 3, "7", "request_id occur more than once"),
        ("source_row", 3, 7, "source_row occur more than once"),
        ("position", 59, 60, "positions of replica 0"),
        ("replica", 0, 1, "positions of replica"),
        ("batch", 59, 0, "not in order of admission"),
        ("memory_left_tokens", 5, 10**9, "row 5: memory partition exceeds"),
        ("memory_right_tokens", 5, -1, "row 5: memory partition exceeds"),
        ("prefill_budget_tokens", 0, 0, "row 0: prefill budget is outside"),
        ("prefill_budget_tokens", 0, 129, "row 0: prefill budget is outside"),
        ("prompt_tokens", 2, 5000, "row 2: request is longer than the whole KV cache"),
        ("cached_tokens", 2, 10**6, "row 2: cached tokens"),
        ("cached_tokens", 2, -1, "row 2: cached tokens"),
        ("output_tokens_mean", 4, 4096.0, "row 4: request is longer than the whole KV cache"),
        ("start_s", 59, 0.0, "not in order of admission"),
        ("finish_s", 8, 0.0, "row 8: request does not end after it starts"),
        ("finish_s", 8, 1e9, "the last request ends at"),
        ("start_s", 8, float("nan"), "row 8: request does not end"),
        ("prompt_token_ids", 8, [1, 2], "row 8: prompt_token_ids and prompt_tokens differ"),
    ],
)
def test_impossible_value_is_named(
    column: str, row: int, value: Any, line: str, made: Plan
) -> None:
    values = made.table[column].to_pylist()
    values[row] = value
    altered = Plan(with_column(made.table, column, values), made.metadata)
    assert line in refusal(altered.verify)


def test_too_many_running_at_once_is_found(made: Plan) -> None:
    metadata = made.metadata | {"engine": made.metadata["engine"] | {"max_num_seqs": 2}}
    assert "requests run at" in refusal(Plan(made.table, metadata).verify)


def test_any_change_of_the_metadata_is_found(made: Plan, path: Path) -> None:
    described, table = metadata_of(path), Plan.read(path).table
    leaves = [
        (outer, inner)
        for outer, value in described.items()
        for inner in (value if isinstance(value, dict) else [None])
    ]
    assert len(leaves) > 30
    told = ("do not match their checksum", "damaged metadata", "format version 12345")
    for outer, inner in leaves:
        altered = json.loads(json.dumps(described))
        place, key = (altered, outer) if inner is None else (altered[outer], inner)
        place[key] = 12345
        write_raw(path, table, altered)
        changed = refusal(lambda: read_and_verify(path))
        del place[key]
        write_raw(path, table, altered)
        for line in (changed, refusal(lambda: read_and_verify(path))):
            assert any(words in line for words in told), (outer, inner, line)


@pytest.mark.parametrize(
    ("place", "key", "value", "line"),
    [
        ((), "requests", 59, "metadata says 59 requests, there are 60 rows"),
        (("predicted",), "makespan_s", 1.0, "the last request ends at"),
        (("predicted",), "prompt_tokens", 7, "metadata says 7"),
        (("prefix_sharing",), "planned", 0.0, "prompt tokens are cached, metadata says 0.0"),
        ((), "bound_ratio", 1.5, "bound_ratio is 1.5"),
        ((), "bound_ratio", 0.0, "bound_ratio is 0.0"),
        (("engine",), "kv_tokens", 64, "exceeds the KV cache"),
        (("engine",), "kv_tokens", "many", "metadata lacks or mistypes"),
        (("engine",), "block_size", 0, "4096 tokens in blocks of 0"),
        ((), "engine", None, "metadata lacks or mistypes"),
        ((), "predicted", [], "metadata lacks or mistypes"),
    ],
)
def test_wrong_metadata_is_named(
    place: tuple[str, ...], key: str, value: Any, line: str, made: Plan
) -> None:
    metadata = json.loads(json.dumps(made.metadata))
    inner = metadata[place[0]] if place else metadata
    inner[key] = value
    assert line in refusal(Plan(made.table, metadata).verify)
    del inner[key]
    assert "metadata lacks or mistypes" in refusal(Plan(made.table, metadata).verify)


def test_cut_off_file(path: Path) -> None:
    whole = path.read_bytes()
    lengths = [len(whole) * tenth // 10 for tenth in range(10)]
    for length in [*lengths, 1, 7, 8, 9, len(whole) - 1, len(whole) - 10]:
        path.write_bytes(whole[:length])
        line = refusal(lambda: Plan.read(path))
        assert str(path) in line and "blendplan plan" in line
    path.write_bytes(whole + b"more")
    line = refusal(lambda: Plan.read(path))
    assert f"{path} is not a plan file, or it is cut off or damaged" in line
    assert "make it again with `blendplan plan`" in line


def test_files_that_are_no_plans(made: Plan, path: Path, tmp_path: Path) -> None:
    def line_for(file: Path) -> str:
        line = refusal(lambda: Plan.read(file))
        assert str(file) in line
        return line

    foreign = tmp_path / "foreign.arrow"
    assert "No such file" in line_for(tmp_path / "missing.arrow")
    assert "directory" in line_for(tmp_path)
    foreign.write_bytes(b"")
    line_for(foreign)
    foreign.write_text('{"prompt": "a request, not a plan"}\n')
    line_for(foreign)
    foreign.write_bytes(bytes(range(256)) * 100)
    line_for(foreign)
    pq.write_table(made.table, foreign)
    line_for(foreign)
    with pa.OSFile(str(foreign), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(made.table)
    line_for(foreign)
    write_raw(foreign, pa.table({"a": [1, 2]}), None)
    assert "not a plan" in line_for(foreign)
    write_raw(foreign, made.table, None)
    assert "not a plan" in line_for(foreign)


@pytest.mark.parametrize(
    "text", [b"", b"no json", b"\xff\xfe", b"[]", b'"text"', b"7", b"null", b"{}", b"[" * 100_000]
)
def test_damaged_metadata(text: bytes, made: Plan, path: Path) -> None:
    write_raw(path, made.table, text)
    assert "damaged metadata" in refusal(lambda: Plan.read(path))


def test_other_version_and_other_columns(path: Path) -> None:
    described, table = metadata_of(path), Plan.read(path).table
    for version in (0, 1, 2, 4, "3", None):
        write_raw(path, table, described | {"format_version": version})
        assert f"format version {version!r}" in refusal(lambda: Plan.read(path))
    for name in SCHEMA.names:
        write_raw(path, table.drop_columns([name]), described)
        assert f"lacks column '{name}'" in refusal(lambda: Plan.read(path))
    at = SCHEMA.get_field_index("batch")
    typed = table.set_column(at, "batch", table["batch"].cast(pa.int32()))
    write_raw(path, typed, described)
    assert "columns of other types" in refusal(lambda: Plan.read(path))
    write_raw(path, table.append_column("extra", table["batch"]), described)
    assert "columns of other types" in refusal(lambda: Plan.read(path))
    without = {key: value for key, value in described.items() if key != "metadata_sha256"}
    write_raw(path, table, without)
    assert "damaged metadata" in refusal(lambda: Plan.read(path))


def test_flipped_bytes_are_found_or_harmless(path: Path) -> None:
    """Padding and the copy of the schema that is not read may change; nothing else."""
    whole, kept = path.read_bytes(), read_and_verify(path)
    chance = random.Random(1)
    found = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            plan_read = read_and_verify(path)
        except BlendplanError as error:
            assert "\n" not in str(error)
            found += 1
        else:
            assert plan_read.table.equals(kept.table)
            assert plan_read.metadata == kept.metadata
    assert found > 250


def test_unwritable_path_leaves_nothing(made: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for place, why in (
        (tmp_path / "missing" / "plan.arrow", f"{tmp_path}/missing does not exist; create it"),
        (tmp_path, "it is a folder; give the path of a file"),
        (tmp_path / "file" / "plan.arrow", f"{tmp_path}/file is not a folder; create it"),
    ):
        line = refusal(partial(made.write, place))
        assert f"cannot write {place}: " in line and why in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "not a folder"


def test_full_disk_leaves_the_old_plan(made: Plan, path: Path) -> None:
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        line = refusal(lambda: made.write(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(path) in line
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_device_is_one_line(made: Plan) -> None:
    assert "/dev/full" in refusal(lambda: made.write("/dev/full"))


def test_interrupt_leaves_nothing(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pa.ipc, "new_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.write(tmp_path / "plan.arrow")
    assert list(tmp_path.iterdir()) == []
