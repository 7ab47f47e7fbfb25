"""Prefix tree: which requests share which prompt prefix, in flat arrays.

In go `Requests` and, for sorting and splitting, what each request costs; out comes a `PrefixTree`
whose depth-first order is a schedule's raw material. Knows nothing of GPUs.
"""
