"""Simulated engine: the steps that vLLM's V1 scheduler would take, and what they cost.

In go a `Workload`, a policy, the engine's limits and the price of a step; out comes a
`SimulatedRun`. Knows how an engine schedules and caches, not why a policy prefers an order.
"""

from blendplan.simulator.run import SimulatedRun, simulate_run
from blendplan.simulator.series import SERIES as SERIES_NAMES
from blendplan.simulator.workload import Workload

__all__ = ["SERIES_NAMES", "SimulatedRun", "Workload", "simulate_run"]
