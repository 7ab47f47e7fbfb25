"""`HistoryPredictor`: output lengths as in earlier results of the same kind of job."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.earlier_results import Results
from blendplan.lengths.predicted import Lengths
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


class HistoryPredictor:
    """Mean and quantiles of earlier outputs whose prompts were about as long.

    Results are sorted by prompt length and cut into bins of equal size. Ids play no part: those of
    another job name other requests. Results of the very same requests are a sample, see
    `FromSample`.

    Parameters:
        bins: most bins.
        bin_results: fewest results in a bin; fewer results than twice that make one bin.

    Attributes:
        edges_: longest prompt of each bin but the last, in tokens; int64 [b - 1].
        lengths_: mean and quantiles of the outputs in each bin; [b].
        note_: how many results, and whether their prompt lengths count.
    """

    takes_file = True
    edges_: NDArray[np.int64]
    lengths_: Lengths
    note_: str

    def __init__(self, bins: int = 32, bin_results: int = 50) -> None:
        self.bins = bins
        self.bin_results = bin_results

    def fit(
        self, requests: Requests, tree: PrefixTree, results: Results | None
    ) -> "HistoryPredictor":
        """Learn from k results; one bin when a prompt length is unknown, that is, -1."""
        assert results is not None, "takes_file says that there are results"
        prompt_tokens, output_tokens = results.prompt_tokens, results.output_tokens
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
        p50, p90 = (
            [float(np.quantile(part, q, method="inverted_cdf")) for part in parts]
            for q in (0.5, 0.9)
        )
        self.lengths_ = Lengths.log_normal([part.mean() for part in parts], p50, p90)
        self.note_ = (
            f"output lengths are those of {len(results):,} results in {results.name}"
            + (", by prompt length" if len(self.edges_) else ", one distribution for all")
            + "; a 1 % sample of these requests would do better"
        )
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """By the bin that each prompt length falls into."""
        bins = np.searchsorted(self.edges_, requests.prompt_tokens, side="left")
        return replace(self.lengths_.take(bins), note=self.note_)
