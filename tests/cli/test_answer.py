"""Where answers go: tables on terminals of any width and in files."""

import sys

import click
import pytest

from blendplan.cli.group import cli
from blendplan.hardware.lookup import gpu_names


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> list[str]:
    """What ``blendplan gpus`` prints on a terminal of that width; 0 is a file."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: columns > 0)
    cli.main(["gpus"], standalone_mode=False)
    return click.unstyle(capsys.readouterr().out).splitlines()


@pytest.mark.parametrize(("columns", "widest"), [(0, 120), (200, 200), (100, 100), (80, 80)])
def test_a_table_fits_its_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
    widest: int,
) -> None:
    lines = printed(monkeypatch, capsys, columns)
    assert max(map(len, lines)) <= widest
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows if row and row[0] in gpu_names()] == gpu_names()
    (row,) = (row for row in rows if row and row[0] == "mi300x")
    assert row == ["mi300x", "1307", "2615", "5.30", "192.0", "GiB", "448", "247", "no"]


def test_a_narrower_terminal_wraps_rather_than_cuts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(monkeypatch, capsys, 40) == printed(monkeypatch, capsys, 80)
