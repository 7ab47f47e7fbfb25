"""Output lengths: how many tokens each request will generate, and how sure that is.

In go `Requests`, their tree and whatever is known (stated lengths, samples, earlier results); out
comes `Lengths`. Knows nothing of costs.
"""

from blendplan.lengths.history import HistoryPredictor
from blendplan.lengths.lengths import SOURCES, Lengths, Summary
from blendplan.lengths.predict import METHODS, predict_lengths
from blendplan.lengths.prior import PriorPredictor
from blendplan.lengths.results import Results, read_results
from blendplan.lengths.sample import SamplePredictor, choose_sample
from blendplan.lengths.shrinkage import ShrinkagePredictor

__all__ = [
    "METHODS",
    "SOURCES",
    "HistoryPredictor",
    "Lengths",
    "PriorPredictor",
    "Results",
    "SamplePredictor",
    "ShrinkagePredictor",
    "Summary",
    "choose_sample",
    "predict_lengths",
    "read_results",
]
