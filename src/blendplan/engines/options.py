"""`SchedulerOptions`: what an engine's additional configuration says to the plan's scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendplan.engines.planned import WAIT_S
from blendplan.errors import BlendplanError
from blendplan.names import did_you_mean
from blendplan.printable import show

_KEYS = ("blendplan", "blendplan_replica", "blendplan_wait_s", "blendplan_log_steps")


@dataclass(frozen=True)
class SchedulerOptions:
    """Options of a scheduler that follows a plan.

    Attributes:
        path: of the plan; or the folder of the replay that started the engine.
        replica: which part of a plan for several engines.
        wait_s: seconds that the plan's next request is waited for while others are there.
        log_steps: whether the replay is told what each step computes.
    """

    path: Path
    replica: int = 0
    wait_s: float = WAIT_S
    log_steps: bool = False

    @classmethod
    def of(cls, given: Any) -> "SchedulerOptions":
        """The options in an engine's additional configuration; keys of others are left alone.

        Raises:
            BlendplanError: they name no plan, or are wrong.
        """
        named = given if isinstance(given, Mapping) else {}
        for key in named:
            if str(key).startswith("blendplan") and key not in _KEYS:
                hint = did_you_mean(str(key), list(_KEYS))
                raise BlendplanError(f"additional_config has no {key!r}; {hint or 'leave it out'}")
        path, wait_s = named.get("blendplan"), named.get("blendplan_wait_s", WAIT_S)
        replica = named.get("blendplan_replica", 0)
        if not isinstance(path, str) or not path:
            raise BlendplanError(
                "the scheduler follows a plan and was given none; name one with "
                """--additional-config '{"blendplan": "plan.arrow"}'"""
            )
        if isinstance(wait_s, bool) or not isinstance(wait_s, int | float) or not wait_s >= 0:
            raise BlendplanError(
                f"additional_config has blendplan_wait_s {show(wait_s)}; give seconds, 0 or more"
            )
        if isinstance(replica, bool) or not isinstance(replica, int):
            raise BlendplanError(
                f"additional_config has blendplan_replica {show(replica)}; give a whole number"
            )
        return cls(Path(path), replica, float(wait_s), named.get("blendplan_log_steps") is True)
