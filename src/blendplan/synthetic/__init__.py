"""Synthetic workloads: request sets with a wished-for compute density and prefix sharing.

In go request traces (lengths) and two numbers; out comes a `Requests` with known output lengths,
mixed as the paper mixes its own (A.3). Prices of requests come from `cost`; knows nothing of
policies or engines.
"""

from blendplan.synthetic.mixture import Family, Mixture
from blendplan.synthetic.pools import POOL_NAMES, Pool, load_pool, traces_folder
from blendplan.synthetic.prompts import write_prompts
from blendplan.synthetic.rows import Rows
from blendplan.synthetic.workloads import (
    PAPER_TRACES,
    Recipe,
    mix,
    paper_trace,
    recipe,
    synthesize,
)

__all__ = [
    "PAPER_TRACES",
    "POOL_NAMES",
    "Family",
    "Mixture",
    "Pool",
    "Recipe",
    "Rows",
    "load_pool",
    "mix",
    "paper_trace",
    "recipe",
    "synthesize",
    "traces_folder",
    "write_prompts",
]
