"""Engines: the simulated engine, vLLM and SGLang behind one protocol.

An adapter starts its engine, submits, steps and reports. Nothing here decides an order, reads a
plan or writes results. An engine in a process of its own imports its adapter and no numba, which
vLLM's CPU platform does not tolerate.
"""
