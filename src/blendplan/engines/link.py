"""The line between a replay and a plan's policy inside the engine's scheduler process.

The replay listens at a socket in a folder of its own; the scheduler, a process that the engine
starts, calls there. It is told its `Session` and then, now and then, what to pass over and which
requests are its own from now on, or that another session begins; it reports.
"""

import contextlib
import pickle
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from blendplan.engines.onlooker import Onlooker
from blendplan.engines.options import SchedulerOptions
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.protocol import Report, Session
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.folder import MANIFEST
from blendplan.planfile.opened import open_plan
from blendplan.planfile.plan import Plan

# Names in the folder.
PLAN, SOCKET = "plan.arrow", "scheduler"
PASS_OVER, MOVE, STOP, NEXT = "pass over", "move", "stop", "next"
# What the scheduler answers to NEXT, before its first report on that session and when it is ready.
BEGIN, READY = "begin", "ready"

Admission = PlannedAdmission | Onlooker


def listen(folder: Path) -> socket.socket:
    """The replay's end, before the engine starts."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / SOCKET))
    listener.listen(1)
    return listener


def accept(listener: socket.socket, session: Session) -> Connection:
    """The line to the scheduler that calls."""
    line, _ = listener.accept()
    connection = Connection(line.detach())
    connection.send_bytes(pickle.dumps(session))
    return connection


class Reporter:
    """The scheduler's end.

    Args:
        folder: of the replay.
    """

    def __init__(self, folder: Path) -> None:
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(folder / SOCKET))
        self._folder = folder
        self._line = Connection(line.detach())
        self.session: Session = pickle.loads(self._line.recv_bytes())

    def tell(self, report: Report) -> None:
        """Report; to nobody where the replay is gone."""
        self._say(report)

    def admission(self, limits: EngineLimits, wait_s: float) -> Admission:
        """What the scheduler asks in this session."""
        plan = Plan.read(self._folder / PLAN)
        limits = limits.with_step_of(self.session.step_tokens)
        if self.session.stock:
            return Onlooker(plan, limits, self.tell)
        return PlannedAdmission(plan, limits, session=self.session, tell=self.tell, wait_s=wait_s)

    def obey(self, admission: Admission, renew: Callable[[], Admission]) -> None:
        """Do what the replay says from now on, in a thread of its own.

        Args:
            admission: of this session.
            renew: called when there is another one; makes the scheduler ask its admission.
        """
        thread = threading.Thread(target=self._listen, args=(admission, renew), daemon=True)
        thread.start()

    def _listen(self, admission: Admission, renew: Callable[[], Admission]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                word, what = pickle.loads(self._line.recv_bytes())
                if word == NEXT:
                    self._say(BEGIN)
                    self.session = what
                    admission = renew()
                    self._say(READY)
                elif isinstance(admission, Onlooker):
                    continue  # requests come in order, and who stops has stopped sending them
                elif word == PASS_OVER:
                    admission.pass_over(what)
                elif word == MOVE:
                    admission.move(what)
                elif word == STOP:
                    admission.stop()

    def _say(self, what: Report | str) -> None:
        with contextlib.suppress(OSError):
            self._line.send_bytes(pickle.dumps(what))


def admission_of(
    options: SchedulerOptions,
    limits: EngineLimits,
    follow: Callable[[Admission], None] = lambda admission: None,
) -> Admission:
    """What an engine's scheduler asks: a plan's policy, or an onlooker where it decides itself.

    Args:
        options: where the plan is, or the replay.
        limits: of the engine.
        follow: called with what to ask in the next session, in another thread, when this one is
            over and the engine is to run another.

    Raises:
        BlendplanError: there is no plan, or it has no such part.
    """
    if not options.path.is_dir() or (options.path / MANIFEST).is_file():
        plan = open_plan(options.path).part(options.replica)
        return PlannedAdmission(plan, limits, wait_s=options.wait_s)
    reporter = Reporter(options.path)

    def renew() -> Admission:
        admission = reporter.admission(limits, options.wait_s)
        follow(admission)
        return admission

    admission = reporter.admission(limits, options.wait_s)
    reporter.obey(admission, renew)
    return admission
