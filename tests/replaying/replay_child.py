"""Sessions of a replay, each in a process of its own that a test can kill.

Run as a script: it imports and compiles everything once, then forks a session for each line on
standard input, a JSON object with the arguments of `replay` and a number for the session. It
prints the process id of the session, and its exit status when it has ended.
"""

import json
import os
import sys
from pathlib import Path

from blendplan.engines import simulated
from blendplan.planfile.plan import Plan
from blendplan.replaying.journal import Order
from blendplan.replaying.run import replay


def session(plan: Plan, number: int, output: str, order: Order) -> None:
    """Replay until the end or until killed; results carry the session's number as their time."""
    simulated.created = lambda: number
    status = 3
    try:
        replay(plan, output=Path(output), order=order, resume=True)
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Serve sessions of the plan named on the command line."""
    plan = Plan.read(sys.argv[1])
    replay(plan)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            session(plan, **asked)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
