"""The line between a replay and a plan's policy inside the engine's scheduler process.

The replay listens at a socket in a folder of its own; the scheduler, a process that the engine
starts, calls there. It is told its `Session` and then, now and then, what to pass over and which
requests are its own from now on; it reports.
"""

import contextlib
import pickle
import socket
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from blendplan.engines.options import SchedulerOptions
from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.protocol import Report, Session
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.folder import MANIFEST
from blendplan.planfile.opened import open_plan
from blendplan.planfile.plan import Plan

# Names in the folder.
PLAN, SOCKET = "plan.arrow", "scheduler"
PASS_OVER, MOVE, STOP = "pass over", "move", "stop"


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
        self._line = Connection(line.detach())
        self.session: Session = pickle.loads(self._line.recv_bytes())

    def tell(self, report: Report) -> None:
        """Report; to nobody where the replay is gone."""
        with contextlib.suppress(OSError):
            self._line.send_bytes(pickle.dumps(report))

    def obey(self, admission: PlannedAdmission) -> None:
        """Do what the replay says from now on, in a thread of its own."""
        thread = threading.Thread(target=self._listen, args=(admission,), daemon=True)
        thread.start()

    def _listen(self, admission: PlannedAdmission) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                word, what = pickle.loads(self._line.recv_bytes())
                if word == PASS_OVER:
                    admission.pass_over(what)
                elif word == MOVE:
                    admission.move(what)
                elif word == STOP:
                    admission.stop()


def admission_of(options: SchedulerOptions, limits: EngineLimits) -> PlannedAdmission:
    """The policy that an engine's scheduler asks.

    Args:
        options: where the plan is, or the replay.
        limits: of the engine.

    Raises:
        BlendplanError: there is no plan, or it has no such part.
    """
    if not options.path.is_dir() or (options.path / MANIFEST).is_file():
        plan = open_plan(options.path).part(options.replica)
        return PlannedAdmission(plan, limits, wait_s=options.wait_s)
    reporter = Reporter(options.path)
    plan = Plan.read(options.path / PLAN)
    admission = PlannedAdmission(
        plan, limits, session=reporter.session, tell=reporter.tell, wait_s=options.wait_s
    )
    reporter.obey(admission)
    return admission
