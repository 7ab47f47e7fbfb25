"""Real request traces, where the tests are given any."""

import os

import pytest
from benchmarks.synthetic.pools import traces_folder

TRACES = traces_folder(os.environ.get("BLENDPLAN_DATA", "."))
needs_traces = pytest.mark.skipif(
    not os.environ.get("BLENDPLAN_DATA"), reason="BLENDPLAN_DATA does not name a folder of traces"
)
