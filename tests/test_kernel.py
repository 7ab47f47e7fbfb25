"""Cached machine code is that of the sources at hand, also of those that a function calls."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import blendplan.kernel
from blendplan.kernel import code_version
from blendplan.simulator.steps import run_steps

OUTER = """\
from pack.kernel import kernel
from pack.inner import inner

@kernel
def outer(x: int) -> int:
    return inner(x)
"""
INNER = """\
from pack.constant import TEN
from pack.kernel import kernel

@kernel
def inner(x: int) -> int:
    return x + TEN + {}
"""


def package_in(folder: Path) -> Path:
    """A package of two kernels, with the real decorator."""
    pack = folder / "pack"
    pack.mkdir()
    (pack / "__init__.py").touch()
    (pack / "kernel.py").write_bytes(Path(blendplan.kernel.__file__).read_bytes())
    (pack / "constant.py").write_text("TEN = 10\n")
    (pack / "outer.py").write_text(OUTER)
    (pack / "inner.py").write_text(INNER.format(0))
    return pack


def outer_of_1(folder: Path, **variables: str) -> tuple[int, bool]:
    """The result in a fresh process, and whether the machine code came from the cache."""
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    script = "from pack.outer import outer\nprint(outer(1), sum(outer.stats.cache_hits.values()))\n"
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    result, hits = map(int, run.stdout.split())
    return result, hits > 0


def test_a_changed_callee_or_constant_is_compiled_into_its_callers(tmp_path: Path) -> None:
    pack = package_in(tmp_path)
    assert outer_of_1(tmp_path) == (11, False)
    assert outer_of_1(tmp_path) == (11, True)
    (pack / "inner.py").write_text(INNER.format(5))
    assert outer_of_1(tmp_path) == (16, False)
    (pack / "constant.py").write_text("TEN = 20\n")
    assert outer_of_1(tmp_path) == (26, False)
    # Only the code of the version at hand is kept.
    assert len(list((pack / "__pycache__").glob("blendplan-kernels-*"))) == 1


def test_a_cache_folder_of_the_user_is_kept_to(tmp_path: Path) -> None:
    pack = package_in(tmp_path)
    chosen = tmp_path / "chosen"
    assert outer_of_1(tmp_path, NUMBA_CACHE_DIR=str(chosen)) == (11, False)
    assert outer_of_1(tmp_path, NUMBA_CACHE_DIR=str(chosen)) == (11, True)
    assert not (pack / "__pycache__").exists()
    assert len(list(chosen.rglob("*.nbi"))) == 2


def test_a_package_that_cannot_be_written(tmp_path: Path) -> None:
    pack = package_in(tmp_path)
    (pack / "__pycache__").write_text("in the way")
    cache = tmp_path / "cache"
    assert outer_of_1(tmp_path, XDG_CACHE_HOME=str(cache)) == (11, False)
    assert outer_of_1(tmp_path, XDG_CACHE_HOME=str(cache)) == (11, True)
    # No place to keep machine code at all: it still runs, and leaves nothing.
    (tmp_path / "temporary").mkdir()
    nowhere = {"XDG_CACHE_HOME": str(pack / "inner.py"), "TMPDIR": str(tmp_path / "temporary")}
    assert outer_of_1(tmp_path, **nowhere) == (11, False)
    assert outer_of_1(tmp_path, **nowhere) == (11, False)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_version_is_that_of_folders_with_kernels(tmp_path: Path) -> None:
    (tmp_path / "loops").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "loops" / "a.py").write_text("\n@kernel\ndef a(): ...\n")
    (tmp_path / "texts" / "t.py").write_text("TEXT = 1\n")
    first = code_version(tmp_path)
    (tmp_path / "texts" / "t.py").write_text("TEXT = 2\n")
    assert code_version(tmp_path) == first
    (tmp_path / "loops" / "numbers.py").write_text("ONE = 1\n")
    second = code_version(tmp_path)
    assert second != first
    (tmp_path / "loops" / "numbers.py").rename(tmp_path / "loops" / "more.py")
    assert code_version(tmp_path) != second


def test_the_step_loop_is_kept_in_the_folder_of_this_version() -> None:
    # Sources may change while the tests run: the version is that of the import.
    compiled: Any = run_steps
    assert str(blendplan.kernel._FOLDER) in compiled.stats.cache_path
