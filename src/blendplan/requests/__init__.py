"""Requests: from a request file to columns of ids, token ids and limits.

In goes a JSONL, Parquet or Arrow file; out comes one `Requests`. Knows nothing of trees, costs or
schedules.
"""

from blendplan.requests.columns import Requests
from blendplan.requests.lists import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.requests.write import write_requests

__all__ = ["Requests", "read_requests", "requests_from_lists", "write_requests"]
