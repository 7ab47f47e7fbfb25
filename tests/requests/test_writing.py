"""Writing request files, and files that appear whole or not at all."""

import errno
import json
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.requests.write import write_requests
from blendplan.whole_file import replacing

SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]
LIMIT = st.none() | st.integers(1, 10**9)
ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5), LIMIT, LIMIT),
    min_size=1,
    max_size=6,
)


def content(requests: Requests) -> list[tuple[Any, ...]]:
    """What must survive a round trip, request by request."""
    return [
        (
            requests.ids[row].as_py(),
            requests.prompt(row).tolist(),
            int(requests.output_tokens[row]),
            int(requests.max_tokens[row]),
        )
        for row in range(len(requests))
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_round_trip(tmp_path: Path, suffix: str, rows: list[Any]) -> None:
    prompts, output_tokens, max_tokens = zip(*rows, strict=True)
    ids = [f"é-{i}" for i in range(len(rows))]
    requests = requests_from_lists(
        prompts, output_tokens=output_tokens, max_tokens=max_tokens, ids=ids
    )
    path = tmp_path / f"r{suffix}"
    write_requests(requests, path)
    assert content(read_requests(path)) == content(requests)
    assert list(tmp_path.iterdir()) == [path]


LINES: list[dict[str, Any]] = [
    {"custom_id": "b", "body": {"prompt": "text", "max_tokens": 4, "stop": ["x"]}},
    {"prompt": "no id", "top_k": 5},
    {"id": None, "prompt_token_ids": [1, 2], "output_tokens": 6},
    {"body": {"prompt": [3], "seed": 1}, "custom_id": None},
]


def test_lines_stay_as_they_are_and_ids_are_put_in(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.jsonl", tmp_path / "copy.jsonl"
    source.write_text("\n" + "\n".join(json.dumps(line) for line in LINES))
    requests = read_requests(source)
    write_requests(requests, copy)
    assert content(read_requests(copy)) == content(requests)
    written = copy.read_text().splitlines()
    assert written[0] == json.dumps(LINES[0])
    assert json.loads(written[1]) == {"id": "3", **LINES[1]}
    assert written[1].endswith(json.dumps(LINES[1])[1:])
    assert json.loads(written[2]) == {**LINES[2], "id": "4"}
    assert json.loads(written[3]) == {**LINES[3], "custom_id": "5"}


def test_chosen_rows_in_the_order_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text("\n".join(json.dumps(line) for line in LINES))
    requests = read_requests(source)
    write_requests(requests, tmp_path / "some.jsonl", np.array([2, 0]))
    some = read_requests(tmp_path / "some.jsonl")
    assert content(some) == [content(requests)[2], content(requests)[0]]


def test_sampling_parameters_pass_through_parquet(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "prompt_token_ids": [1], "temperature": 0.5, "stop": ["x"], "max_tokens": 3},
        {"id": "b", "body": {"prompt": [2, 2], "temperature": 1.0, "max_completion_tokens": 4}},
        {"id": "c", "prompt_token_ids": [3]},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    requests = read_requests(tmp_path / "r.jsonl")
    write_requests(requests, tmp_path / "r.parquet", np.array([0, 2, 1]))
    again = read_requests(tmp_path / "r.parquet")
    assert content(again) == [content(requests)[row] for row in (0, 2, 1)]
    write_requests(again, tmp_path / "again.jsonl")
    written = (tmp_path / "again.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == [
        lines[0],
        lines[2],
        {
            "id": "b",
            "prompt_token_ids": [2, 2],
            "temperature": 1.0,
            "max_completion_tokens": 4,
        },
    ]


def test_parquet_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"prompt":"text"}')
    text = read_requests(tmp_path / "r.jsonl")
    with pytest.raises(BlendplanError, match="their token ids only estimates"):
        write_requests(text, tmp_path / "r.parquet")
    mixed = '{"prompt_token_ids":[1],"stop":"a"}\n{"prompt_token_ids":[1],"stop":["a"]}'
    (tmp_path / "r.jsonl").write_text(mixed)
    with pytest.raises(BlendplanError, match='"stop" has values of different types'):
        write_requests(read_requests(tmp_path / "r.jsonl"), tmp_path / "r.parquet")
    with pytest.raises(BlendplanError, match="let the name end in"):
        write_requests(text, tmp_path / "r.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def write(path: Path, text: str = "new") -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_replacing_makes_a_file_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_replacing_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_mode_and_follows_links(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_replacing_takes_the_longest_names(tmp_path: Path) -> None:
    names = {"n" * 250 + ".json", "." + "s" * 250}
    for name in names:
        write(tmp_path / name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "new"
    )


def test_replacing_writes_to_devices_and_pipes() -> None:
    write(Path(os.devnull))
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder", "is a folder"),
        ("missing/out", "does not exist"),
        ("file/out", "is not a folder"),
        ("n" * 300, "choose a shorter one"),
        ("nul\0", "choose another name"),
        ("loop/out", "cannot write"),
    ],
)
def test_replacing_says_why_not(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = set(tmp_path.iterdir())
    with pytest.raises(BlendplanError) as caught:
        write(tmp_path / name)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that takes no files")
def test_replacing_in_a_folder_that_takes_no_files() -> None:
    with pytest.raises(BlendplanError, match="/proc/x: its folder has gone or takes no files"):
        write(Path("/proc/x"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_replacing_without_permission(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o400)
    with pytest.raises(BlendplanError, match="read-only"):
        write(tmp_path / "file")
    tmp_path.chmod(0o500)
    with pytest.raises(BlendplanError, match="permission denied"):
        write(tmp_path / "other")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_as_python_reports_it() -> None:
    with pytest.raises(BlendplanError, match="/dev/full: the disk is full; free some space"):
        write(Path("/dev/full"))


def test_full_disk_as_other_writers_report_it(tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="out: the disk is full"), replacing(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "no file name given")
    with pytest.raises(OSError, match="elsewhere"), replacing(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "other file", "elsewhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_limit_on_file_size(tmp_path: Path, suffix: str) -> None:
    """The size limit of a process stands for a disk that fills up while writing."""
    generator = np.random.default_rng(1)
    requests = requests_from_lists([generator.integers(0, 2**31, 5000) for _ in range(20)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(BlendplanError, match="too large"):
            write_requests(requests, tmp_path / f"r{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
