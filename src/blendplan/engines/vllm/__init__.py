"""vLLM: its own server application in front, the plan's policy in its scheduler.

`PlannedScheduler` is found here by its dotted name, for servers that users start themselves.
Written for vLLM 0.32.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "PlannedScheduler":
        from blendplan.engines.vllm.scheduler import PlannedScheduler

        return PlannedScheduler
    raise AttributeError(name)
