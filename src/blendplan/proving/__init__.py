"""Proving: real runs against what was planned for them.

In go requests and an engine; out come folders of measurements, and what they say of the cost model
and of the gain of a plan. Everything runs by the same paths as a job would. Knows nothing of the
command line, nor of tables and pictures.
"""
