"""Engines: run a plan on the simulated engine, on vLLM or on SGLang.

In goes a `Plan`; out come OpenAI batch output lines, one per request, in one file. One replay loop
drives all engines; an adapter only starts its engine, submits, steps and reports. Nothing here
decides an order: that is the plan's live policy.

Names are imported when they are first used: the process that an engine gets for itself imports its
adapter and no numba, which vLLM's CPU platform cannot bear to find loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blendplan.engines.engine import Capacity as Capacity
    from blendplan.engines.run import Replayed as Replayed
    from blendplan.engines.run import replay as replay
    from blendplan.engines.sample import run_sample as run_sample
    from blendplan.engines.start import ENGINES as ENGINES
    from blendplan.engines.tally import Tally as Tally

_HOMES = {
    "Capacity": "engine",
    "ENGINES": "start",
    "Replayed": "run",
    "Tally": "tally",
    "replay": "run",
    "run_sample": "sample",
}
__all__ = [*sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
