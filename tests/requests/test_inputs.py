"""Which files words name: folders, globs, addresses, several at once."""

from pathlib import Path

import pytest

from blendplan import BlendplanError
from blendplan.requests.inputs import find_inputs, local_copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "a.jsonl",
        "b.parquet",
        "sub/c.jsonl",
        "sub/deep/d.jsonl",
        "_SUCCESS",
        ".x/e.jsonl",
    ):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("", ["a.jsonl", "b.parquet", "sub/c.jsonl", "sub/deep/d.jsonl"]),
        ("/*.jsonl", ["a.jsonl"]),
        ("/?.[jp]*", ["a.jsonl", "b.parquet"]),
        ("/[!a]*", ["_SUCCESS", "b.parquet"]),
        ("/*/*.jsonl", ["sub/c.jsonl"]),
        ("/.*/*.jsonl", [".x/e.jsonl"]),
        ("/**/*.jsonl", ["a.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl"]),
        ("/s*/**/*.jsonl", ["sub/c.jsonl", "sub/deep/d.jsonl"]),
    ],
)
def test_words_name_files(folder: Path, word: str, names: list[str]) -> None:
    for prefix in ("", "file://"):
        inputs = find_inputs([f"{prefix}{folder}{word}"])
        assert [one.name for one in inputs] == names
        assert [one.shown for one in inputs] == [f"{prefix}{folder}/{name}" for name in names]
        assert all(one.id_prefix == f"{one.name}:" for one in inputs)


def test_several_words_keep_their_order_and_name_a_file_once(folder: Path) -> None:
    inputs = find_inputs([f"{folder}/sub/deep", f"{folder}/b.parquet", f"{folder}"])
    assert [one.name for one in inputs] == [
        "sub/deep/d.jsonl", "b.parquet", "a.jsonl", "sub/c.jsonl",
    ]  # fmt: skip
    assert [one.bytes for one in inputs] == [len(one.name) for one in inputs]


def test_a_single_file_needs_no_name_in_ids(folder: Path) -> None:
    (one,) = find_inputs([str(folder / "a.jsonl")])
    assert one.id_prefix == ""
    (folder / "odd[1].jsonl").write_text("x")
    (odd,) = find_inputs([str(folder / "odd[1].jsonl")])
    assert odd.place == str(folder / "odd[1].jsonl")


def test_names_do_not_depend_on_other_files(folder: Path) -> None:
    before = {one.name for one in find_inputs([str(folder)])}
    for name in ("a.jsonl", "b.parquet"):
        (folder / name).unlink()
    assert {one.name for one in find_inputs([str(folder)])} < before


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("/a.json", "did you mean"),
        ("/none/", "does not exist"),
        ("/*.csv", "matches no file"),
        ("/sub/deep/*/", "matches no file"),
    ],
)
def test_words_that_name_nothing(folder: Path, word: str, said: str) -> None:
    with pytest.raises(BlendplanError, match=said):
        find_inputs([f"{folder}{word}"])


def test_addresses_that_nobody_opens() -> None:
    with pytest.raises(BlendplanError, match="cannot be read"):
        find_inputs(["nowhere://bucket/x.jsonl"])
    with pytest.raises(BlendplanError) as caught:
        find_inputs(["nowhere://bucket/x.jsonl?secret_key=abc"])
    assert "abc" not in str(caught.value)
    with pytest.raises(BlendplanError, match="no request files"):
        find_inputs([])


def test_a_remote_file_is_copied_for_as_long_as_it_is_used(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from pyarrow import fs

    (one,) = find_inputs([f"{folder}/sub/c.jsonl"])
    remote = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    far = replace(one, filesystem=remote, place="sub/c.jsonl")
    with local_copy(far, tmp_path) as path:
        assert path.parent == tmp_path
        assert path.read_text() == "sub/c.jsonl"
    assert not path.exists()
    with (
        pytest.raises(BlendplanError, match="cannot be read"),
        local_copy(replace(far, place="gone"), tmp_path),
    ):
        pass


def test_a_folder_of_a_plan_holds_no_requests(folder: Path) -> None:
    (folder / "part-00000-0123abcd.arrow").write_text("x")
    assert len(find_inputs([str(folder)])) == 5
    (folder / "manifest.json").write_text("{}")
    for word in (folder, folder / "*"):
        with pytest.raises(BlendplanError, match="is a plan; give the request files it was made"):
            find_inputs([str(word)])
