"""`HistoryPredictor`: output lengths as in earlier results of the same kind of job."""

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.predicted import Summary


class HistoryPredictor:
    """Mean and quantiles of earlier outputs whose prompts were about as long.

    Results are sorted by prompt length and cut into bins of equal size. Ids play no part: those of
    another job name other requests. Results of the very same requests are a sample, see
    `ShrinkagePredictor`.

    Parameters:
        bins: most bins.
        bin_results: fewest results in a bin; fewer results than twice that make one bin.

    Attributes:
        edges_: longest prompt of each bin but the last, in tokens; int64 [b - 1].
        summary_: mean and quantiles of the outputs in each bin; [b].
    """

    edges_: NDArray[np.int64]
    summary_: Summary

    def __init__(self, bins: int = 32, bin_results: int = 50) -> None:
        self.bins = bins
        self.bin_results = bin_results

    def fit(
        self, prompt_tokens: NDArray[np.int32], output_tokens: NDArray[np.int32]
    ) -> "HistoryPredictor":
        """Learn from k results; one bin when a prompt length is unknown, that is, -1."""
        order = np.argsort(prompt_tokens, kind="stable")
        lengths = prompt_tokens[order].astype(np.int64)
        count = 1
        if lengths[0] >= 0:
            count = max(1, min(self.bins, len(lengths) // self.bin_results))
        cuts = np.arange(1, count) * len(lengths) // count
        # Prompts of one length stay in one bin.
        self.edges_ = np.unique(lengths[cuts - 1])
        parts = np.split(output_tokens[order], np.searchsorted(lengths, self.edges_, side="right"))
        if len(parts) > 1 and not len(parts[-1]):
            parts.pop()
            self.edges_ = self.edges_[:-1]
        mean = np.array([part.mean() for part in parts])
        p50, p90 = (
            np.array([float(np.quantile(part, q, method="inverted_cdf")) for part in parts])
            for q in (0.5, 0.9)
        )
        self.summary_ = Summary(mean, p50, p90)
        return self

    def predict(self, prompt_tokens: NDArray[np.int32]) -> Summary:
        """Mean and quantiles for requests with these prompt lengths; int32 [n]."""
        bins = np.searchsorted(self.edges_, prompt_tokens, side="left")
        mean, p50, p90 = self.summary_
        return Summary(mean[bins], p50[bins], p90[bins])
