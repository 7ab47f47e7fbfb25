"""Options of `blendplan replay` for a cluster, without one."""

import sys
from pathlib import Path

import pytest

from tests.cli.cli_runs import run, write_job


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    write_job(folder / "requests.jsonl")
    made = folder / "plan.arrow"
    words = ["--gpu", "l4", "--replicas", "2", "--effort", "0", "-o", str(made)]
    assert run("plan", str(folder / "requests.jsonl"), *words).exit_code == 0
    return made


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--replicas-max", "2"], "--replicas-max needs --ray ADDRESS"),
        (["--gpus-per-replica", "0"], "--gpus-per-replica needs --ray ADDRESS"),
        (["--ray", "auto", "--replica", "1"], "--ray runs all replicas; drop --replica"),
    ],
)
def test_options_that_contradict_each_other(plan_file: Path, words: list[str], told: str) -> None:
    done = run("replay", str(plan_file), *words)
    assert done.exit_code == 2
    assert told in done.stderr


def test_without_ray_a_line_says_what_to_install(
    plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("replay", str(plan_file), "--ray", "local")
    assert done.exit_code == 1
    assert "pip install 'blendplan[ray]' adds it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nobody_listens_there(plan_file: Path) -> None:
    pytest.importorskip("ray")
    done = run("replay", str(plan_file), "--ray", "127.0.0.1:1")
    assert done.exit_code == 1
    assert 'no Ray cluster answers at "127.0.0.1:1"' in done.stderr


def test_the_head_that_ray_remembers_is_gone(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    done = run("replay", str(plan_file), "--ray", "auto")
    assert done.exit_code == 1
    assert "no Ray cluster is running on this machine" in done.stderr
    assert len(done.stderr.splitlines()) == 1
