"""blendplan plans offline LLM batch inference.

It reads all requests before the GPU starts and decides in which order, and into which share of
the KV cache, each one goes. `plan` is the main path; everything else reads, writes, simulates,
compares or replays. A name is imported when it is first used, so ``import blendplan`` is free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blendplan.comparison import Comparison as Comparison
    from blendplan.comparison import compare as compare
    from blendplan.engines import replay as replay
    from blendplan.engines.sim_plan import simulate as simulate
    from blendplan.errors import BlendplanError as BlendplanError
    from blendplan.planfile import Plan as Plan
    from blendplan.planner import plan as plan
    from blendplan.requests import Requests as Requests
    from blendplan.requests import read_requests as read_requests
    from blendplan.requests import requests_from_lists as requests_from_lists
    from blendplan.requests import write_requests as write_requests
    from blendplan.schedule import EngineSettings as EngineSettings
    from blendplan.schedule import LivePolicy as LivePolicy

__version__ = "0.1.0"

_HOMES = {
    "BlendplanError": "blendplan.errors",
    "Comparison": "blendplan.comparison",
    "EngineSettings": "blendplan.schedule",
    "LivePolicy": "blendplan.schedule",
    "Plan": "blendplan.planfile",
    "Requests": "blendplan.requests",
    "compare": "blendplan.comparison",
    "plan": "blendplan.planner",
    "read_requests": "blendplan.requests",
    "replay": "blendplan.engines",
    "requests_from_lists": "blendplan.requests",
    "simulate": "blendplan.engines.sim_plan",
    "write_requests": "blendplan.requests",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blendplan' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
