"""Replay: run a plan on an engine, and lose nothing.

In goes a `Plan` and the name of an engine; out come OpenAI batch output lines, one per request, in
one file. One loop drives all engines; the order is decided by the plan's live policy.
"""
