"""Cached machine code never outlives the sources it was made from."""

import os
import subprocess
import sys
from pathlib import Path

from blendplan.kernel import forget_stale_code

PACKAGE = """\
from pathlib import Path
from blendplan.kernel import forget_stale_code
forget_stale_code(Path(__file__).parent)
"""
OUTER = """\
from blendplan.kernel import kernel
from pack.inner import inner

@kernel
def outer(x: int) -> int:
    return inner(x)
"""
INNER = """\
from blendplan.kernel import kernel

@kernel
def inner(x: int) -> int:
    return x + {}
"""


def outer_of_1(folder: Path) -> int:
    roots = os.pathsep.join([str(folder), *filter(None, sys.path)])
    # Numba falls back to a cache of its own where the folder cannot be written; not here.
    environment = {**os.environ, "PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    script = "from pack.outer import outer; print(outer(1))"
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    return int(run.stdout)


def test_a_changed_callee_is_compiled_into_its_callers(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(PACKAGE)
    (pack / "outer.py").write_text(OUTER)
    (pack / "inner.py").write_text(INNER.format(10))
    assert outer_of_1(tmp_path) == 11
    cached = sorted(pack.rglob("*.nbi"))
    assert len(cached) == 2
    stamps = [index.stat().st_mtime_ns for index in cached]
    assert outer_of_1(tmp_path) == 11
    assert [index.stat().st_mtime_ns for index in cached] == stamps
    (pack / "inner.py").write_text(INNER.format(20))
    assert outer_of_1(tmp_path) == 21


def test_only_older_code_in_folders_with_kernels_is_removed(tmp_path: Path) -> None:
    def put(name: str, time: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time, time))
        return path

    put("loops/a.py", 100)
    put("loops/b.py", 200)
    put("texts/newest.py", 900)
    old, new = put("loops/__pycache__/a.nbi", 150), put("loops/__pycache__/b.nbi", 250)
    forget_stale_code(tmp_path)
    assert not old.exists() and new.exists()
    forget_stale_code(tmp_path / "missing")
