"""Progress bars and the notice of compilation."""

import io
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from blendplan.cli import compilation
from blendplan.cli import progress as module
from blendplan.cli.compilation import NOTICE, CompilationClock, compilation_clock
from blendplan.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal, and no patience.

    Not a fixture: pytest puts its own standard error in place after fixtures are made.
    """
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(module, "_FRAME_S", 0.001)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def _until_drawn(stream: Terminal, *words: str) -> None:
    deadline = time.monotonic() + 20
    while not all(word in stream.getvalue() for word in words):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bar_shows_stage_and_share(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    with Progress(quiet=False) as progress:
        progress.stage("reading requests.jsonl")
        progress.advance(30, 120)
        _until_drawn(terminal, "reading requests.jsonl", "25%")
        progress.report("simulating blend", 1, 2)
        _until_drawn(terminal, "simulating blend", "50%")
    assert terminal.getvalue().endswith("\x1b[2K")  # the bar is wiped away at the end


def test_lines_are_printed_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    with Progress(quiet=False) as progress:
        progress.stage("planning")
        _until_drawn(terminal, "planning")
        progress.line("a remark [of note]")
        _until_drawn(terminal, "a remark [of note]")
        remark = terminal.getvalue().rindex("a remark [of note]")
        while "planning" not in terminal.getvalue()[remark:]:
            time.sleep(0.01)
    # On a line of its own, and the bar again below it.
    assert terminal.getvalue()[remark:].startswith("a remark [of note]\n")


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setattr(module, "_PATIENCE_S", 60.0)
    monkeypatch.setitem(sys.modules, "rich.console", None)  # what short work need not import
    with Progress(quiet=False) as progress:
        progress.stage("planning")
        progress.line("a remark")
    assert terminal.getvalue() == "a remark\n"


def test_a_line_under_the_bar_is_whole_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    with Progress(quiet=False) as progress:
        progress.stage("planning")
        _until_drawn(terminal, "planning")
        progress.line("a remark")
        progress.stage("writing")
        _until_drawn(terminal, "writing")
    # The row of the bar is wiped before the line is written, and drawn anew below it.
    assert re.search(r"\x1b\[2Ka remark *\n.*writing", terminal.getvalue(), re.DOTALL)


def test_no_bar_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_for(monkeypatch)
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    threads = threading.active_count()
    with Progress(quiet=False) as progress:
        progress.stage("planning")
        progress.line("a remark")
        assert threading.active_count() == threads
    assert pipe.getvalue() == "a remark\n"


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    threads = threading.active_count()
    with Progress(quiet=True) as progress:
        progress.stage("planning")
        progress.line("a remark")
        assert threading.active_count() == threads
    assert terminal.getvalue() == ""


def test_the_bar_goes_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Progress(quiet=False) as progress:
        progress.stage("planning")
        _until_drawn(terminal, "planning")
        raise KeyboardInterrupt
    deadline = time.monotonic() + 20
    while threading.active_count() > threads:  # rich does not wait for its own
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back


def test_nested_compilations_count_once_and_are_named_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(compilation, "NOTICE_AFTER_S", 0.001)
    clock = CompilationClock(said.append)
    start, end = SimpleNamespace(is_start=True), SimpleNamespace(is_start=False)
    before = time.perf_counter()
    for event in (start, start, end, end, start, end):
        clock.notify(event)
        time.sleep(0.002)
    assert said == [NOTICE]
    assert 0.006 <= clock.seconds < time.perf_counter() - before


def test_numba_reports_to_the_clock_while_it_runs() -> None:
    import numba

    said: list[str] = []
    with compilation_clock(said.append) as clock:
        numba.njit(lambda x: x + 1)(1)
    assert said == []  # too short to tell
    seconds = clock.seconds
    assert seconds > 0
    numba.njit(lambda x: x + 2)(1)
    assert clock.seconds == seconds
