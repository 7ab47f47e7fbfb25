"""Machine code stays valid until something that it depends on changes, and no longer."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

import blendplan.kernels.ahead
import blendplan.kernels.kernel
from blendplan.kernels.cache import cache_folder
from blendplan.kernels.fingerprint import fingerprint
from blendplan.simulator.steps import serve

SOURCES = {
    "constants.py": """\
from typing import NamedTuple

TEN = 10
NESTED = ((1, 2), (3, 4))

class Pair(NamedTuple):
    left: int
    right: int
""",
    "inner.py": """\
from pack import constants
from pack.constants import TEN
from blendplan.kernels.kernel import kernel

@kernel
def inner(x: int) -> int:
    return x + TEN + constants.NESTED[1][0] * 1000

@kernel
def other(x: int) -> int:
    return x * 100
""",
    "outer.py": """\
from pack.constants import Pair
from pack.inner import inner, other
from blendplan.kernels.kernel import kernel

def looped(step, times):
    @kernel
    def run(x):
        for _ in range(times):
            x = step(x)
        return x
    return run

@kernel
def outer(x: int) -> int:
    return inner(x)

@kernel
def difference(pair: Pair) -> int:
    return pair.left - pair.right

inner_twice = looped(inner, 2)
other_twice = looped(other, 2)
""",
}
# Prints the result of each expression and whether its machine code came from the cache.
SCRIPT = """\
import sys
from pack.constants import Pair
from pack.outer import difference, inner_twice, other_twice, outer
for call in sys.argv[1:]:
    result = eval(call)
    print(result, sum(eval(call.partition("(")[0]).stats.cache_hits.values()))
"""


class Pack:
    """A small package of kernels with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tree"
        self.cache = folder / "cache"
        (self.folder / "pack").mkdir(parents=True)
        (self.folder / "pack" / "__init__.py").touch()
        for name, text in SOURCES.items():
            (self.folder / "pack" / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a piece of one file."""
        file = self.folder / "pack" / name
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))

    def start(self, *calls: str, script: str = SCRIPT, **variables: str) -> "subprocess.Popen[str]":
        """A fresh process that evaluates some expressions."""
        source = str(Path(blendplan.kernels.kernel.__file__).parents[2])
        environment = {key: value for key, value in os.environ.items() if key != "HOME"}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(self.folder), source]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(self.cache),
            **variables,
        }
        command = [sys.executable, "-c", script, *calls]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def run(self, *calls: str, **variables: str) -> list[tuple[int, bool]]:
        """Results in a fresh process, and which of them took their machine code from the cache."""
        return answers(self.start(*calls, **variables))

    def files(self) -> dict[str, bytes]:
        """The contents of the cache."""
        return {str(file): file.read_bytes() for file in self.cache.rglob("*") if file.is_file()}


def answers(process: "subprocess.Popen[str]") -> list[tuple[int, bool]]:
    """What `SCRIPT` printed."""
    output, _ = process.communicate()
    assert process.returncode == 0
    lines = [line.split() for line in output.splitlines()]
    return [(int(result), hits != "0") for result, hits in lines]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return Pack(tmp_path)


OUTER = ("outer(1)", "inner_twice(1)", "other_twice(1)")


def test_edits_without_effect_are_none(pack: Pack) -> None:
    assert pack.run(*OUTER) == [(3011, False), (6021, False), (10000, False)]
    kept = pack.files()
    pack.edit("inner.py", "import TEN\n", "import TEN\n\n# A remark.\n\n")
    pack.edit("inner.py", "int:\n    return x + TEN", "'int':\n    'Sum.'\n    return x + TEN")
    pack.edit("outer.py", "def outer(x: int) -> int:", "def outer(x):\n    # Just so.\n")
    pack.edit("constants.py", "left: int", "left: float")
    assert pack.run(*OUTER) == [(3011, True), (6021, True), (10000, True)]
    # Nor are edits of what is not used.
    pack.edit("inner.py", "return x * 100", "return x * 10")
    assert pack.run(*OUTER) == [(3011, True), (6021, True), (100, False)]
    # Nothing has been removed or overwritten.
    assert kept.items() <= pack.files().items()


def test_what_is_compiled_in_counts_wherever_it_is(pack: Pack) -> None:
    pack.run(*OUTER)
    pack.edit("inner.py", "return x + TEN", "return x + 5 + TEN")
    assert pack.run(*OUTER) == [(3016, False), (6031, False), (10000, True)]
    pack.edit("constants.py", "TEN = 10", "TEN = 20")
    assert pack.run(*OUTER) == [(3026, False), (6051, False), (10000, True)]
    pack.edit("constants.py", "(3, 4)", "(4, 4)")
    assert pack.run(*OUTER) == [(4026, False), (8051, False), (10000, True)]
    pack.edit("outer.py", "looped(inner, 2)", "looped(inner, 3)")
    assert pack.run(*OUTER) == [(4026, True), (12076, False), (10000, True)]
    # The first state is still there.
    pack.edit("outer.py", "looped(inner, 3)", "looped(inner, 2)")
    pack.edit("constants.py", "(4, 4)", "(3, 4)")
    pack.edit("constants.py", "TEN = 20", "TEN = 10")
    pack.edit("inner.py", "return x + 5 + TEN", "return x + TEN")
    assert pack.run(*OUTER) == [(3011, True), (6021, True), (10000, True)]


def test_fields_of_an_argument_are_part_of_its_type(pack: Pack) -> None:
    call = "difference(Pair(left=5, right=3))"
    assert pack.run(call) == [(2, False)]
    pack.edit("constants.py", "left: int\n    right: int", "right: int\n    left: int")
    assert pack.run(call) == [(2, False)]
    assert pack.run(call) == [(2, True)]


def test_inner_functions_of_one_factory_are_told_apart(pack: Pack) -> None:
    # Compiled in two processes, where numba alone gives both the same name, and loaded in a third.
    assert pack.run("inner_twice(1)") == [(6021, False)]
    assert pack.run("other_twice(1)") == [(10000, False)]
    assert pack.run("inner_twice(1)", "other_twice(1)") == [(6021, True), (10000, True)]


def test_processes_that_start_at_once_share_the_work(pack: Pack) -> None:
    running = [pack.start("outer(1)", "other_twice(1)") for _ in range(2)]
    found = [answers(process) for process in running]
    assert [[result for result, _ in answer] for answer in found] == [[3011, 10000]] * 2
    assert pack.run("outer(1)", "other_twice(1)") == [(3011, True), (10000, True)]
    # Neither locks nor unfinished files are left.
    assert {Path(name).suffix for name in pack.files()} == {".nbc"}


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_a_damaged_entry_is_compiled_anew(pack: Pack, damage: str) -> None:
    pack.run("outer(1)")
    for file, content in pack.files().items():
        middle = len(content) // 2
        damaged = {
            "truncated": content[:middle],
            "overwritten": content[:middle] + b"x" + content[middle + 1 :],
            "empty": b"",
        }
        Path(file).write_bytes(damaged[damage])
    assert pack.run("outer(1)") == [(3011, False)]
    assert pack.run("outer(1)") == [(3011, True)]


def test_the_cache_is_found_in_the_first_place_that_can_be_written(tmp_path: Path) -> None:
    # With a blank and a letter of two bytes in all paths.
    pack = Pack(tmp_path / "für alle")
    package = pack.folder / "blendplan"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kernels").mkdir()
    for name in ("__init__", "kernel", "cache", "fingerprint", "by_record"):
        text = Path(blendplan.kernels.kernel.__file__).with_name(f"{name}.py").read_text()
        (package / "kernels" / f"{name}.py").write_text(text)

    def kept_in(place: Path, **variables: str) -> None:
        for hit in (False, True):
            assert pack.run("outer(1)", NUMBA_CACHE_DIR="", **variables) == [(3011, hit)]
        assert len(list((place / "blendplan-kernels").glob("*.nbc"))) == 1

    kept_in(package / "__pycache__")
    # A package that cannot be written.
    for file in (package / "__pycache__" / "blendplan-kernels").iterdir():
        file.unlink()
    (package / "__pycache__" / "blendplan-kernels").rmdir()
    (package / "__pycache__").rmdir()
    (package / "__pycache__").write_text("in the way")
    home, chosen, temporary = tmp_path / "hömè", tmp_path / "chosen by user", tmp_path / "temporary"
    kept_in(home / ".cache", HOME=str(home))
    kept_in(chosen, HOME=str(home), XDG_CACHE_HOME=str(chosen))
    # No place to keep machine code at all: it still runs, and leaves nothing.
    temporary.mkdir()
    for _ in range(2):
        nowhere = {"NUMBA_CACHE_DIR": "", "TMPDIR": str(temporary)}
        assert pack.run("outer(1)", **nowhere) == [(3011, False)]
    assert list(temporary.iterdir()) == []


def test_the_step_loop_is_cached() -> None:
    compiled: Any = serve
    assert str(cache_folder()) == compiled.stats.cache_path


def test_every_kernel_has_a_digest() -> None:
    found = 0
    for package in walk_packages(blendplan.__path__, "blendplan."):
        if package.name.endswith("__main__"):
            continue
        with suppress(ImportError):
            for value in vars(import_module(package.name)).values():
                if isinstance(value, Dispatcher):
                    assert len(fingerprint(value)) == 64
                    found += 1
    assert found > 50


AHEAD = """\
import sys, time
from blendplan.kernels.ahead import compile_ahead
from pathlib import Path
from pack.constants import Pair
from pack.outer import difference, other_twice, outer
with compile_ahead(["pack.ahead:work"]):
    difference(Pair(2, 1))
    deadline = time.monotonic() + 60
    while len(list(Path(sys.argv[1]).rglob("*.nbc"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
for compiled in (outer, other_twice):
    print(compiled(1), sum(compiled.stats.cache_hits.values()))
"""


@pytest.mark.skipif(blendplan.kernels.ahead._cores() < 2, reason="needs a second core")
def test_a_second_process_compiles_ahead(pack: Pack) -> None:
    work = "from pack.outer import other_twice, outer\n\ndef work():\n    print('here')\n"
    (pack.folder / "pack" / "ahead.py").write_text(f"{work}    other_twice(1)\n    outer(1)\n")
    process = pack.start(str(pack.cache), script=AHEAD)
    assert answers(process) == [(3011, True), (10000, True)]


def test_a_second_process_that_fails_does_no_harm(pack: Pack) -> None:
    script = AHEAD.replace('"pack.ahead:work"', '"pack.nowhere:work"').replace("+ 60", "+ 0.5")
    process = pack.start(str(pack.cache), script=script)
    assert answers(process) == [(3011, False), (10000, False)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_second_process_ends_with_the_first(pack: Pack) -> None:
    (pack.folder / "pack" / "ahead.py").write_text(
        "import os, sys, time\n\ndef work():\n"
        f"    open({str(pack.cache) + '.pid'!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(300)\n"
    )
    script = """\
import os, sys, time
from blendplan.kernels.ahead import compile_ahead
from pack.outer import outer
with compile_ahead(["pack.ahead:work"]):
    outer(1)
    while not os.path.exists(sys.argv[1]) or not os.path.getsize(sys.argv[1]):
        time.sleep(0.05)
    os._exit(0)
"""
    noted = Path(f"{pack.cache}.pid")
    pack.start(str(noted), script=script).communicate(timeout=60)
    child = Path("/proc", noted.read_text())
    deadline = time.monotonic() + 20
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: Path) -> bool:
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
