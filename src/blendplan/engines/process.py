"""An engine in a process of its own, so that it can die without taking the run with it.

The parent holds one end of a socket pair, the child the other; they take turns: the parent sends
the requests to submit, the child takes a step and sends its report.
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
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from blendplan.engines.protocol import (
    Capacity,
    Engine,
    EngineDiedError,
    EngineRequest,
    StepReport,
)
from blendplan.errors import BlendplanError

# Long enough for an engine to free a GPU, short enough for a user who waits for the prompt.
_CLOSE_S = 30.0

_TAIL_BYTES = 100_000
# A link that somebody put at the name of the log is not written through.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
_ERROR_CHARACTERS = 300
_EXCEPTION = re.compile(r"(\w+\.)*\w*(Error|Exception): .")
_CHILD = "from blendplan.engines.process import main; main()"
_READY, _REFUSED, _REPORT, _FAILED = "ready", "refused", "report", "failed"


class EngineProcess:
    """An engine started by ``start()`` in a child process.

    Args:
        start: makes the engine; must survive pickling.
        log: file that what the engine prints is appended to; a temporary one without it.

    Raises:
        BlendplanError: the engine refuses to start.
        EngineDiedError: it died while starting.
    """

    capacity: Capacity

    def __init__(self, start: Callable[[], Engine], *, log: Path | None = None) -> None:
        self.log = log or _temporary_log()
        # An engine that died before this one may have said why.
        self._keep_log = self.log.exists() and self.log.stat().st_size > 0
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
        try:
            kind, content = self._ask(start)
        except BaseException:
            self._kill()
            raise
        if kind == _REFUSED:
            self._kill()
            self._forget_log()
            raise BlendplanError(content)
        if kind == _FAILED:
            self._kill()
            raise EngineDiedError(content + self._where_it_printed())
        self.capacity = content

    @property
    def pid(self) -> int:
        """Process id of the engine, which leads a process group of its own."""
        return self._process.pid

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        """Submit ``requests``, wait for a step, and report."""
        kind, content = self._ask((list(requests), prefill_tokens))
        if kind == _REPORT:
            report: StepReport = content
            return report
        self._kill()
        raise EngineDiedError(content + self._where_it_printed())

    def close(self) -> None:
        """Stop the engine and remove its log, unless it or one before it died."""
        ended_well = False
        try:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._pipe.send_bytes(pickle.dumps(None))
                ended_well = self._process.wait(_CLOSE_S) == 0
        finally:
            self._kill()
        if ended_well:
            self._forget_log()

    def _ask(self, message: Any) -> tuple[str, Any]:
        try:
            self._pipe.send_bytes(pickle.dumps(message))
            answer: tuple[str, Any] = self._pipe.recv()
        except KeyboardInterrupt:
            self._kill()  # not waiting for the step: who interrupts a step wants to leave
            self._forget_log()
            raise
        except (EOFError, OSError):
            raise EngineDiedError(self._obituary() + self._where_it_printed()) from None
        return answer

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
        reason = _last_error(self.log)
        return f"the engine {ended} ({reason})" if reason else f"the engine {ended}"

    def _kill(self) -> None:
        """End whatever is left of the engine's process group."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()

    def _where_it_printed(self) -> str:
        if self.log.exists() and self.log.stat().st_size > 0:
            return f"; its output is in {self.log}"
        self._forget_log()
        return ""

    def _forget_log(self) -> None:
        if not self._keep_log:
            self.log.unlink(missing_ok=True)


def _last_error(log: Path) -> str:
    """The last line of an engine's output that reads like an exception; empty if none does."""
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines()
        errors = [line for line in lines if _EXCEPTION.match(line)]
        return errors[-1][:_ERROR_CHARACTERS] if errors else ""
    return ""


def _temporary_log() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="blendplan-engine-", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _serve(pipe: Connection) -> int:
    """Start the engine that the parent asks for and step it until the parent hangs up."""
    try:
        engine: Engine = pickle.loads(pipe.recv_bytes())()
    except BlendplanError as error:
        pipe.send((_REFUSED, str(error)))
        return 0
    except Exception as error:
        traceback.print_exc()
        pipe.send((_FAILED, f"the engine did not start ({_one_line(error)})"))
        return 1
    pipe.send((_READY, engine.capacity))
    while True:
        asked = pickle.loads(pipe.recv_bytes())
        if asked is None:
            engine.close()
            return 0
        try:
            report = engine.step(*asked)
        except Exception as error:
            traceback.print_exc()
            pipe.send((_FAILED, f"the engine failed ({_one_line(error)})"))
            return 1
        pipe.send((_REPORT, report))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_ERROR_CHARACTERS]}" if text else type(error).__name__


def main() -> None:
    """The child: serve the parent whose end of the pipe is named on the command line."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    try:
        code = _serve(Connection(descriptor))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = 1  # the parent is gone, and with it the need for an engine
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        # The engine's own children go too.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGTERM)
    # Not waiting for threads that a broken engine may have left.
    os._exit(code)
