"""Operator models: the time of one kernel by its shape, fitted to measurements.

In go a GPU and shapes; out come seconds. Knows nothing of engines or of steps.
"""
