"""blendplan plans offline LLM batch inference.

It reads all requests before the GPU starts and decides in which order, and into which share of
the KV cache, each one goes. `plan` is the main path; everything else reads, writes, simulates,
compares or replays. A name is imported when it is first used, so ``import blendplan`` is free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blendplan.errors import BlendplanError as BlendplanError
    from blendplan.hardware.engine_limits import EngineLimits as EngineLimits
    from blendplan.planfile.export import export as export
    from blendplan.planfile.opened import open_plan as open_plan
    from blendplan.planfile.plan import Plan as Plan
    from blendplan.planfile.rerun import simulate as simulate
    from blendplan.planning.compare import Comparison as Comparison
    from blendplan.planning.compare import compare as compare
    from blendplan.planning.large.planner import plan_files as plan_files
    from blendplan.planning.planner import plan as plan
    from blendplan.planning.quote import Quote as Quote
    from blendplan.planning.quote import quote as quote
    from blendplan.policy.live import LivePolicy as LivePolicy
    from blendplan.proving.prove import prove as prove
    from blendplan.proving.settings import proof_settings as proof_settings
    from blendplan.proving.trial import trial as trial
    from blendplan.replaying.run import replay as replay
    from blendplan.requests.columns import Requests as Requests
    from blendplan.requests.in_memory import requests_from_lists as requests_from_lists
    from blendplan.requests.read import read_requests as read_requests
    from blendplan.requests.repeats import run_once as run_once
    from blendplan.requests.write import write_requests as write_requests

__version__ = "0.1.0"

_HOMES = {
    "BlendplanError": "blendplan.errors",
    "Comparison": "blendplan.planning.compare",
    "EngineLimits": "blendplan.hardware.engine_limits",
    "LivePolicy": "blendplan.policy.live",
    "Plan": "blendplan.planfile.plan",
    "Quote": "blendplan.planning.quote",
    "Requests": "blendplan.requests.columns",
    "compare": "blendplan.planning.compare",
    "export": "blendplan.planfile.export",
    "open_plan": "blendplan.planfile.opened",
    "plan": "blendplan.planning.planner",
    "plan_files": "blendplan.planning.large.planner",
    "proof_settings": "blendplan.proving.settings",
    "prove": "blendplan.proving.prove",
    "quote": "blendplan.planning.quote",
    "read_requests": "blendplan.requests.read",
    "replay": "blendplan.replaying.run",
    "requests_from_lists": "blendplan.requests.in_memory",
    "run_once": "blendplan.requests.repeats",
    "simulate": "blendplan.planfile.rerun",
    "trial": "blendplan.proving.trial",
    "write_requests": "blendplan.requests.write",
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
