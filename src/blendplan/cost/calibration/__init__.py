"""Calibration: from measurements to a GPU profile.

In go tables of kernel times, or a log of engine steps; out comes a `GpuSpec` with fitted numbers.
Only `blendplan calibrate` and benchmarks need it.
"""
