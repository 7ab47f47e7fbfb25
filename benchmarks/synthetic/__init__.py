"""Synthetic workloads: request sets with a given compute density and prefix sharing.

In go request traces (lengths) and two numbers; out comes a `Requests` with known output lengths,
mixed as the paper mixes its own (A.3). Prices of requests come from `cost`; knows nothing of
policies or engines.
"""
