"""Quoting: what a request set takes on each of many machines, by planning it for all of them.

Combinations of machine and settings come in, `Offer` goes out; `blendplan.planning.quote` puts the
pieces together.
"""
