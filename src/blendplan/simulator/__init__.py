"""Simulated engine: the steps that vLLM's V1 scheduler would take, and what they cost.

In go a `Workload`, a policy, the engine's limits and the price of a step; out comes a
`SimulatedRun`. Knows how an engine schedules and caches, not why a policy prefers an order.
"""
