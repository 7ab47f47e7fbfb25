"""Engines: run a plan on the simulated engine, on vLLM or on SGLang.

In goes a `Plan`; out come OpenAI batch output lines, one per request, in one file. One replay loop
drives all engines; an adapter only starts its engine, submits, steps and reports. Nothing here
decides an order: that is the plan's live policy.
"""

from blendplan.engines.engine import Capacity
from blendplan.engines.graph_sizes import default_grid, graph_sizes, padded_tokens
from blendplan.engines.replay import ENGINES, Replayed, replay
from blendplan.engines.tally import Tally

__all__ = [
    "ENGINES",
    "Capacity",
    "Replayed",
    "Tally",
    "default_grid",
    "graph_sizes",
    "padded_tokens",
    "replay",
]
