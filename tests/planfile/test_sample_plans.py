"""The sample plans: of the current format, and what the commands of their README make."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from blendplan.planfile.columns import METADATA_KEY
from blendplan.planfile.plan import Plan
from tests.cli.cli_runs import run

PROJECT = Path(__file__).parents[2]
SAMPLES = PROJECT / "plans"
README = (SAMPLES / "README.md").read_text(encoding="utf-8")
NAMES = sorted(path.name for path in SAMPLES.glob("*.arrow"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def read(path: Path) -> tuple[pa.Table, dict[str, object]]:
    """Columns and metadata of a plan."""
    table = pa.ipc.open_file(path).read_all()
    return table.replace_schema_metadata(None), json.loads(table.schema.metadata[METADATA_KEY])


def test_the_readme_names_the_sample_plans() -> None:
    assert len(NAMES) == 3
    assert sorted(re.findall(r"^\| `(\S+\.arrow)`", README, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_plan_is_of_the_current_format(name: str) -> None:
    path = SAMPLES / name
    plan = Plan.read(path)
    assert plan.verify(path)
    assert len(plan.table) == 200


def test_the_commands_of_the_readme_make_the_sample_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(PROJECT / "examples")
    (tmp_path / "plans").mkdir()
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks("sh")
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            monkeypatch.setattr(sys, "argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            assert program == "blendplan"
            result = run(*arguments)
            assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "plans").iterdir()) == NAMES
    for name in NAMES:
        (made, said), (table, metadata) = read(tmp_path / "plans" / name), read(SAMPLES / name)
        assert made.equals(table), name
        assert said == metadata, name


@pytest.fixture
def read_with_pyarrow(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The names that the README's first lines of Python define."""
    monkeypatch.chdir(PROJECT)
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)
    return names


def test_pyarrow_reads_a_sample_plan(read_with_pyarrow: dict[str, object]) -> None:
    table, metadata = read_with_pyarrow["plan"], read_with_pyarrow["metadata"]
    assert isinstance(table, pa.Table) and len(table) == 200
    assert isinstance(metadata, dict) and metadata["policy"] == "blend"


def test_duckdb_reads_a_sample_plan(
    read_with_pyarrow: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    exec(blocks("python")[1], read_with_pyarrow)
    printed = capsys.readouterr().out
    assert "compute" in printed and "memory" in printed and "replica" in printed
