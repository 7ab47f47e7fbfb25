"""Requests: from a request file to columns of ids, token ids and limits.

In goes a JSONL, Parquet or Arrow file; out comes one `Requests`. Knows nothing of trees, costs or
schedules.
"""
