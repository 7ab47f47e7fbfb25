"""What SGLang's scheduler processes are told of the plan, by their environment.

SGLang has no argument for what an extension needs to know; its processes inherit the environment.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from blendplan.engines.options import SchedulerOptions
from blendplan.engines.planned import WAIT_S
from blendplan.errors import BlendplanError
from blendplan.printable import show

PLAN, REPLICA, WAIT, LOG_STEPS = (
    "BLENDPLAN_PLAN",
    "BLENDPLAN_REPLICA",
    "BLENDPLAN_WAIT_S",
    "BLENDPLAN_LOG_STEPS",
)
# SGLang keeps memory back for what running requests may still generate, by their `max_tokens`; a
# plan knows their lengths better. With this, one token each (managers/schedule_policy.py).
_RESERVE = "SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION"


def follow(path: Path, *, log_steps: bool) -> None:
    """Let the schedulers that are started from now on follow a plan.

    Args:
        path: of the plan, or the folder of the replay.
        log_steps: whether the replay is told what each step computes.
    """
    os.environ[PLAN] = str(path)
    os.environ[LOG_STEPS] = "1" if log_steps else "0"
    leave_memory_to_the_plan()


def leave_memory_to_the_plan() -> None:
    """Let SGLang admit as long as there is memory now, unless its user has said otherwise."""
    os.environ.setdefault(_RESERVE, "1")


def options(environment: Mapping[str, str] = os.environ) -> SchedulerOptions | None:
    """What the environment says, None where it names no plan.

    Raises:
        BlendplanError: a value is wrong.
    """
    path = environment.get(PLAN)
    if not path:
        return None
    wait, replica = environment.get(WAIT, str(WAIT_S)), environment.get(REPLICA, "0")
    try:
        wait_s = float(wait)
    except ValueError:
        wait_s = -1.0
    if not wait_s >= 0:
        raise BlendplanError(f"{WAIT} is {show(wait)}; give seconds, 0 or more")
    if not replica.isdecimal():
        raise BlendplanError(f"{REPLICA} is {show(replica)}; give a whole number")
    return SchedulerOptions(Path(path), int(replica), wait_s, environment.get(LOG_STEPS) == "1")
