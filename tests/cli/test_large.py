"""``blendplan plan`` into a folder, from the command line."""

from pathlib import Path

import pytest

from blendplan import open_plan
from tests.cli.cli_runs import answer, error_line, run
from tests.planning.large.request_files import lines, write_files

OPTIONS = (
    "--gpu", "l4", "--kv-tokens", "4000", "--max-num-seqs", "16", "--effort", "0",
    "--processes", "1",
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path / "in", lines(60), 3)


def test_a_folder_a_glob_and_files_are_planned_into_a_folder(files: Path, tmp_path: Path) -> None:
    made = []
    ways: list[list[str | Path]] = [[files], [f"{files}/*.jsonl"], [*sorted(files.iterdir())]]
    for number, words in enumerate(ways):
        output = f"{tmp_path / str(number)}/"
        said = answer("plan", *words, *OPTIONS, "--replicas", "2", "-o", output)
        assert said["requests"] == 60
        assert said["parts"] == 2
        assert said["output"] == str(tmp_path / str(number))
        made.append(open_plan(output).metadata)
    assert made[0] == made[1] == made[2]
    second = files / "part-01.jsonl"
    wrong = run("export", tmp_path / "0", "--replica", "0", "-o", second)
    assert "the file that the plan was made from" in error_line(wrong)
    assert answer("verify", tmp_path / "1", "--requests", files)["checked"][-1] == (
        "made from 3 files"
    )


def test_a_folder_as_output_ends_in_a_slash(files: Path, tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    result = run("plan", files, *OPTIONS[:-2], "-o", tmp_path / "plan")
    assert "it is a folder" in error_line(result)


def test_what_is_left_out_is_said(files: Path, tmp_path: Path) -> None:
    with (files / "part-02.jsonl").open("a") as file:
        file.write("no request\n")
    output = tmp_path / "plan"
    result = run("plan", files, *OPTIONS, "--on-error", "skip", "-o", f"{output}/")
    assert f"left out 1 bad or too long requests, see {output}/rejects.jsonl" in result.stderr
    assert "part-02.jsonl, line 21: " in error_line(
        run("plan", files, *OPTIONS, "-o", f"{output}/")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{in}/a", "{in}/b", "-o", "{tmp}/plan.arrow"], "does not exist"),
        (["{in}/*.csv", "-o", "{tmp}/plan.arrow"], "matches no file"),
        (["-", "-o", "{tmp}/p/"], "standard input is planned into one file"),
        (["-", "{in}", "-o", "{tmp}/p.arrow"], "standard input (-) is read alone"),
        (["{in}/part-00.jsonl", "--ray", "auto", "-o", "{tmp}/p.arrow"], "plan into a folder"),
        (["{in}", "--engine", "vllm", "-o", "{tmp}/p/"], "--engine looks through"),
        (
            ["{in}", "--sample-out", "s.jsonl", "-o", "{tmp}/p/"],
            "a sample is taken of what fits into memory",
        ),
        (["{in}", "--lengths", "sample:r.jsonl", "-o", "{tmp}/p/"], "needs all requests at once"),
        (["{in}", "-o", "{in}/"], "holds other files"),
        (["{in}", "-o", "{in}/part-00.jsonl/"], "it is a file"),
        (["{in}", "-o", "{tmp}/none/plan/"], "does not exist"),
    ],
)
def test_wrong_words_are_one_line(files: Path, tmp_path: Path, words: list[str], said: str) -> None:
    filled = [word.replace("{in}", str(files)).replace("{tmp}", str(tmp_path)) for word in words]
    assert said in error_line(run("plan", *filled, "--gpu", "l4"))
    assert not (tmp_path / "p").exists()
