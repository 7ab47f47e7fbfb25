"""Plan folders: parts that are missing, altered or of another plan, and manifests that are none."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import blendplan
from blendplan import BlendplanError, open_plan
from blendplan.planfile.check import metadata_digest
from blendplan.planfile.folder import MANIFEST, PlanFolder
from tests.cli.cli_runs import answer, error_line, run
from tests.planning.large.request_files import SMALL, lines, write_lines


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PlanFolder:
    folder = tmp_path_factory.mktemp("plan")
    files = write_lines(folder / "requests.jsonl", lines(120))
    return blendplan.plan_files(files, folder / "plan", replicas=3, processes=1, **SMALL)


@pytest.fixture
def copy(made: PlanFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


def test_a_folder_and_a_file_are_opened_alike(made: PlanFolder, tmp_path: Path) -> None:
    folder = open_plan(made.path)
    file = tmp_path / "plan.arrow"
    made.part(1).write(file)
    one = open_plan(file)
    assert (len(folder), len(one)) == (3, 1)
    assert folder.part(1).table.equals(one.part(0).table)
    assert folder.requests == 120
    assert folder.verify()[-1] == "every one of 120 requests in one part"
    assert one.verify()
    for opened, missing in ((folder, 3), (one, 1)):
        with pytest.raises(BlendplanError, match=f"no replica {missing}"):
            opened.part(missing)


def test_parts_that_are_not_what_the_manifest_names(made: PlanFolder, copy: Path) -> None:
    names = [file.file for file in made.files]
    second = copy / names[1]
    content = second.read_bytes()
    # A byte that is another is seen where the part is read, the size by `inspect` of the whole too.
    spoilers: list[tuple[Callable[[], object], str, bool]] = [
        (second.unlink, "is missing", True),
        (lambda: second.write_bytes(content[:-9]), "bytes", True),
        (lambda: second.write_bytes(content[:-1] + b"x"), "SHA-256", False),
        (lambda: shutil.copy(copy / names[0], second), "of another plan", True),
    ]
    for spoil, said, is_seen in spoilers:
        spoil()
        opened = open_plan(copy)
        opened.part(0)
        for check in (partial(opened.part, 1), opened.verify):
            with pytest.raises(BlendplanError, match=said) as caught:
                check()
            assert str(second) in str(caught.value)
        for words in (("verify",), ("replay", "--replica", "1")):
            assert names[1] in error_line(run(*words, copy))
        shown = run("inspect", copy)
        assert shown.exit_code == (1 if is_seen else 0)
        assert not is_seen or names[1] in error_line(shown)
        second.write_bytes(content)


def resealed(copy: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    change(content)
    del content["metadata_sha256"]
    content["metadata_sha256"] = metadata_digest(content)
    (copy / MANIFEST).write_text(json.dumps(content))


def test_manifests_that_are_none(copy: Path) -> None:
    manifest = copy / MANIFEST
    text = manifest.read_text()
    for other, said in (
        (text[:-40], "damaged"),
        (text.replace('"requests": 120', '"requests": 121', 1), "damaged"),
        (text.replace('"folder_version": 1', '"folder_version": 99'), "folder version 99"),
        ("[1]", "damaged"),
        ("\udc80\x00", "damaged"),
    ):
        manifest.write_bytes(other.encode("utf-8", "surrogateescape"))
        with pytest.raises(BlendplanError, match=said):
            open_plan(copy)
    manifest.unlink()
    with pytest.raises(BlendplanError, match=r"without manifest\.json.*not finished"):
        open_plan(copy)


def test_parts_are_checked_against_what_the_manifest_says_of_them(copy: Path) -> None:
    resealed(copy, lambda content: content["plan"]["parts"][0].update(policy="dfs"))  # type: ignore
    with pytest.raises(BlendplanError, match=r"is not what manifest\.json says"):
        open_plan(copy).part(0)


def test_parts_with_the_same_requests_are_no_plan(made: PlanFolder, copy: Path) -> None:
    def twice(content: dict[str, object]) -> None:
        for of_parts in (content["files"], content["plan"]["parts"]):  # type: ignore[index]
            of_parts[1] = of_parts[0]  # type: ignore[index]

    resealed(copy, twice)
    with pytest.raises(BlendplanError, match="is not replica 1"):
        open_plan(copy).verify()


def test_the_commands_take_a_folder(made: PlanFolder, tmp_path: Path) -> None:
    shown = answer("inspect", made.path)
    assert shown["requests"] == 120
    assert len(shown["parts"]) == 3
    assert "replica" in run("inspect", made.path).stdout
    one = answer("inspect", made.path, "--replica", "2")
    assert one["requests"] == made.metadata["parts"][2]["requests"]
    assert one["sides"]
    files = made.path.parent / "requests.jsonl"
    assert answer("verify", made.path, "--requests", files)["verified"]
    assert "not the request file" in error_line(
        run("verify", made.path, "--requests", made.path / MANIFEST)
    )
    assert "--replica 0 to 2" in error_line(run("export", made.path, "-o", tmp_path / "o.jsonl"))
    assert "--replica 0 to 2" in error_line(run("replay", made.path))
    written = answer("export", made.path, "--replica", "0", "-o", tmp_path / "o.jsonl")
    assert written["requests"] == made.metadata["parts"][0]["requests"]
    replayed = answer("replay", made.path, "--replica", "0")
    assert replayed["requests"] == written["requests"]
