"""`LengthPredictor`: what every way of predicting output lengths offers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths.earlier_results import Results
from blendplan.lengths.predicted import Lengths
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


class LengthPredictor(Protocol):
    """Learns from what is known, then says how long the output of each request will be.

    Stated lengths and caps are not its business: `predict_lengths` applies them to whatever comes
    out here.
    """

    @property
    def takes_file(self) -> bool:
        """Whether it learns from a results file, which users then give as ``name:FILE``.

        One with an attribute ``takes_requests`` that is true also takes ``name:RESULTS+REQUESTS``.
        """
        ...

    def fit(
        self, requests: Requests, tree: PrefixTree, results: Results | None
    ) -> "LengthPredictor":
        """Learn; returns itself.

        Args:
            requests: n requests, the ones to predict.
            tree: of those, before any split.
            results: of the file, None for a predictor that takes none.

        Raises:
            BlendplanError: there is nothing that it could learn from.
        """
        ...

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """Mean and quantiles for each of the n requests that it was fitted to, and a note."""
        ...


def longest_outputs(max_tokens: NDArray[np.int32]) -> NDArray[np.float64]:
    """Tokens that each output may have, infinite where ``max_tokens`` is -1; float64 [n]."""
    return np.where(max_tokens < 0, np.inf, max_tokens.astype(np.float64))


def stated_lengths(requests: Requests) -> NDArray[np.int32]:
    """Output length of each request as far as it is certain beforehand, else -1; int32 [n].

    A request that may generate one token generates one.
    """
    return np.where(requests.max_tokens == 1, 1, requests.output_tokens).astype(np.int32)
