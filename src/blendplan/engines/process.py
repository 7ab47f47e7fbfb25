"""An engine in processes of its own, so that it can die without taking the run with it.

The child that is started here runs the engine's own server application (`blendplan.engines.front`)
and answers requests over a socket pair. Where the plan's policy runs inside the engine's scheduler,
a line to that process tells which requests to send (`blendplan.engines.link`).
"""

import contextlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from blendplan.engines import link
from blendplan.engines.front import ANSWERS, READY, REFUSED, StartFront
from blendplan.engines.protocol import (
    Capacity,
    EngineDiedError,
    EngineRequest,
    Move,
    Report,
    Session,
)
from blendplan.engines.window import Window
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planfile.shared import with_prompts_of

# Long enough for an engine to free a GPU, short enough for a user who waits for the prompt.
_CLOSE_S = 30.0
# Long enough to compile kernels before another run; one that died is known at once.
_NEXT_S = 300.0

_TAIL_BYTES = 100_000
# A link that somebody put at the name of the log is not written through.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
_ERROR_CHARACTERS = 300
# With what engines write before a line: process, level, time, place.
_EXCEPTION = re.compile(r"(?:.*?\] )?((?:\w+\.)*\w*(?:Error|Exception): .*)")
_CHILD = "from blendplan.engines.front import main; main()"
_WAIT_S = 1.0
_WINDOW = 256
# A path of a socket has at most 107 bytes.
_LONGEST_FOLDER = 80


class EngineProcess:
    """An engine with its server application in a child process.

    Args:
        start: starts the engine, given the folder in which its scheduler finds the plan and the
            line to this process, None where no plan is followed; must survive pickling.
        plan: for the policy inside the engine; None where requests go in the session's order.
        session: what is to be run.
        log: file that what the engine prints is appended to; a temporary one without it.

    Attributes:
        kept: whether it goes on after `close`, for another run; see `KeptEngine`.

    Raises:
        BlendplanError: the engine refuses to start.
        EngineDiedError: it died while starting.
    """

    capacity: Capacity
    kept = False

    def __init__(
        self,
        start: Callable[[Path | None], StartFront],
        plan: Plan | None,
        session: Session,
        *,
        log: Path | None = None,
    ) -> None:
        self.log = log or _temporary_log()
        # An engine that died before this one may have said why.
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        self._keep_log = self._log_begins > 0
        self._line: Connection | None = None
        self._window: Window | None = None
        self._moves = _Moves()
        self._sent = 0
        self._death: str | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._listener: socket.socket | None = None
        folder = None
        if plan is not None:
            self._folder = _folder()
            folder = Path(self._folder.name)
            if session.shared:
                # Lengths are learned of and from these only.
                mine = np.union1d(session.left, np.flatnonzero(session.ended))
                plan = with_prompts_of(plan, mine)
            plan.write(folder / link.PLAN)
            self._listener = link.listen(folder)
        ours, theirs = socket.socketpair()
        with os.fdopen(os.open(self.log, _APPEND, 0o666), "ab") as output, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in a terminal reaches a whole process group; the engine must outlive it.
                start_new_session=True,
            )
        self._pipe = Connection(ours.detach())
        self._report = Report()
        try:
            self._start(start(folder), session)
        except BaseException:
            self._kill()
            raise
        if plan is None or session.stock:
            self._open_window(session)

    def _open_window(self, session: Session) -> None:
        """Send requests in the session's order: nobody asks for them."""
        self._window = Window(session, max(_WINDOW, 2 * self.capacity.limits.max_num_seqs))
        self._report.wanted = self._window.next()

    @property
    def idle(self) -> bool:
        """Whether it lives and has answered all that was sent."""
        return self._death is None and not self._sent and self._process.poll() is None

    def next(self, plan: Plan, session: Session) -> None:
        """Run another plan, from an empty prefix cache, when all that was sent is answered.

        Args:
            plan: of the same model and limits.
            session: what is to be run.

        Raises:
            EngineDiedError: it is gone, or does not take the plan.
        """
        assert self._folder is not None and self._line is not None and self.idle
        plan.write(Path(self._folder.name) / link.PLAN)
        self._tell(link.NEXT, session)
        self._report, self._window, self._moves = Report(), None, _Moves()
        self._begin(session)
        try:
            while (word := self._next_word()) != link.READY:
                if word == link.BEGIN:  # what came before was of the last session
                    self._report = Report()
                elif isinstance(word, Report):
                    self._report.add(word)
        except (EOFError, OSError, TimeoutError):
            self._kill()
            raise EngineDiedError("the engine did not begin another run") from None
        if session.stock:
            self._open_window(session)

    def _begin(self, session: Session) -> None:
        """Its capacity is that of the session."""
        limits = self._started.limits.with_step_of(session.step_tokens)
        self.capacity = replace(self._started, limits=limits)

    def _next_word(self) -> object:
        assert self._line is not None
        if not self._line.poll(_NEXT_S):
            raise TimeoutError
        return pickle.loads(self._line.recv_bytes())

    def _start(self, start: StartFront, session: Session) -> None:
        try:
            self._pipe.send_bytes(pickle.dumps(start))
            while True:
                for ready in wait([self._pipe, *filter(None, [self._listener])]):
                    if ready is not self._pipe:
                        assert self._listener is not None
                        self._line = link.accept(self._listener, session)
                        self._listener.close()
                        self._listener = None
                        continue
                    kind, content = self._pipe.recv()
                    if kind == READY:
                        if self._listener is not None:
                            raise BlendplanError(
                                "the engine's scheduler does not follow the plan: it has another "
                                "scheduler class, or several schedulers; leave that to blendplan"
                            )
                        self._started = content
                        self._begin(session)
                        return
                    if kind == REFUSED:
                        self._forget_log()
                        raise BlendplanError(content)
                    cause = self._first_error()
                    cause = f"; {cause}" if cause and cause not in content else ""
                    raise EngineDiedError(content + cause + self._where_it_printed())
        except (EOFError, OSError):
            raise EngineDiedError(self._obituary() + self._where_it_printed()) from None
        except KeyboardInterrupt:
            self._forget_log()
            raise

    @property
    def pid(self) -> int:
        """Process id of the engine, which leads a process group of its own."""
        return self._process.pid

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        """Send requests, wait until something has happened, and report."""
        self._send(list(requests))
        if self._death is None and not (self._report.wanted or self._report.answers):
            self._receive(_WAIT_S)
            self._take_reports()
        if self._death is not None and not (self._report.answers or self._report.began):
            raise EngineDiedError(self._death)
        if self._window is not None:
            self._report.wanted.extend(self._window.next())
        return self._taken()

    def pass_over(self, rows: Sequence[int]) -> None:
        """Wait no longer for requests that were wanted."""
        if self._window is not None:
            self._window.done(rows)
            self._report.wanted.extend(self._window.next())
        self._tell(link.PASS_OVER, list(rows))

    def move(self, move: Move) -> None:
        """Run other requests from now on."""
        # A scheduler that nobody listens to hears nothing, and a move may be larger than the pipe.
        self._take_reports()
        self._report.drop_wanted(move.rows)
        if self._window is not None:
            self._window.move(move)
            self._report.wanted.extend(self._window.next())
        else:
            self._moves.told(move)
        self._tell(link.MOVE, move)

    def stop(self) -> None:
        """Begin nothing more."""
        if self._window is not None:
            self._window.stop()
        self._tell(link.STOP, [])

    def _take_reports(self) -> None:
        """All that are there."""
        while self._death is None and self._receive(0.0):
            pass

    def _taken(self) -> Report:
        report, self._report = self._report, Report()
        return report

    def _send(self, requests: list[EngineRequest]) -> None:
        if requests:
            self._sent += len(requests)
            with contextlib.suppress(OSError):  # it is dead, which its other end will tell
                self._pipe.send_bytes(pickle.dumps(requests))

    def _tell(self, word: str, what: object) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send_bytes(pickle.dumps((word, what)))

    def _receive(self, timeout_s: float) -> bool:
        """Take up one message of each process that has sent one; whether there was any."""
        try:
            ready = wait([self._pipe, *filter(None, [self._line])], timeout_s)
            if self._line in ready:
                self._hear()
            if self._pipe in ready:
                kind, content = self._pipe.recv()
                assert kind == ANSWERS
                self._sent -= len(content)
                self._report.answers.extend(content)
                if self._window is not None:
                    self._window.done(answer.row for answer in content)
        except KeyboardInterrupt:
            self._kill()  # not waiting for a step: who interrupts twice wants to leave
            self._forget_log()
            raise
        except (EOFError, OSError):
            while self._line is not None and self._line.poll():
                self._hear()
            self._death = self._obituary() + self._where_it_printed()
        return bool(ready) and self._death is None

    def _hear(self) -> None:
        assert self._line is not None
        try:
            report: Report = pickle.loads(self._line.recv_bytes())
            report.drop_wanted(self._moves.unheard(report.moves))
            self._report.add(report)
        except (EOFError, OSError):
            # The engine behind the application is gone; the application will find out.
            self._line.close()
            self._line = None

    def close(self) -> None:
        """Stop the engine and remove its log, unless it or one before it died."""
        if self.kept:
            return
        ended_well = False
        try:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._pipe.send_bytes(pickle.dumps(None))
                ended_well = self._process.wait(_CLOSE_S) == 0
        finally:
            self._kill()
        if ended_well:
            self._forget_log()

    def _obituary(self) -> str:
        try:
            code = self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            return "the engine stopped answering"
        self._kill()
        ended = f"ended with exit code {code}"
        if code < 0:
            ended = f"was killed by {signal.Signals(-code).name}"
        reason = self._first_error()
        return f"the engine {ended} ({reason})" if reason else f"the engine {ended}"

    def _kill(self) -> None:
        """End whatever is left of the engine's process group."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()
        for end in (self._line, self._listener):
            if end is not None:
                end.close()
        self._line = self._listener = None
        if self._folder is not None:
            self._folder.cleanup()

    def _where_it_printed(self) -> str:
        if self.log.exists() and self.log.stat().st_size > 0:
            return f"; its output is in {self.log}"
        self._forget_log()
        return ""

    def _first_error(self) -> str:
        """The first line of what it printed that reads like an exception: others follow from it."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(self._log_begins, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            for line in log.read().decode(errors="replace").splitlines():
                if found := _EXCEPTION.match(line):
                    return found[1][:_ERROR_CHARACTERS]
        return ""

    def _forget_log(self) -> None:
        if not self._keep_log:
            self.log.unlink(missing_ok=True)


class _Moves:
    """The moves that the scheduler was told of, and may not have heard of when it reports."""

    def __init__(self) -> None:
        self._told: deque[set[int]] = deque()
        self._heard = 0

    def told(self, move: Move) -> None:
        """It will hear of this one next."""
        self._told.append(move.rows)

    def unheard(self, heard: int) -> set[int]:
        """Rows of the moves that it has not heard of, of which there are so many that it has."""
        while self._heard < heard:
            self._told.popleft()
            self._heard += 1
        return set().union(*self._told)


def _temporary_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="blendplan-engine-", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that only this user may enter, with a path short enough for a socket."""
    where = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="blendplan-", dir=where if len(where) < _LONGEST_FOLDER else "/tmp"
    )
