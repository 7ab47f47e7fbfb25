"""`FromSample`: predictors that learn from results of some of the very requests."""

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import Results
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predicted import Lengths, Total
from blendplan.lengths.shrinkage import ShrinkagePredictor
from blendplan.lengths.strata import strata_of
from blendplan.lengths.totals import total_interval
from blendplan.lengths.weights import sample_weights
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


class SubtreePredictor(Protocol):
    """Predicts by where a request ends in the prefix tree, from rows whose length is known."""

    def fit(
        self,
        tree: PrefixTree,
        rows: NDArray[np.int64],
        output_tokens: NDArray[np.int32],
        max_tokens: NDArray[np.int32] | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> "SubtreePredictor":
        """Learn from k rows of the tree, each of which stands for so many requests; [k] each."""
        ...

    def predict(
        self, nodes: NDArray[np.int32], max_tokens: NDArray[np.int32] | None = None
    ) -> Lengths:
        """Mean and quantiles for requests that end at these nodes, with these caps; int32 [n]."""
        ...


class FromSample:
    """Matches results with requests by id and has a rule predict the rest from them.

    The sampled requests get the length that they had.

    Parameters:
        rule: what predicts.

    Attributes:
        rows_: the sampled requests; int64 [k].
        output_tokens_: their output lengths; int32 [k].
        total_: output tokens of all requests, by the samples and their weights.
        note_: which results were of no use, empty if none.
    """

    takes_file = True
    rows_: NDArray[np.int64]
    output_tokens_: NDArray[np.int32]
    total_: Total
    note_: str

    def __init__(self, rule: SubtreePredictor) -> None:
        self.rule = rule

    def fit(self, requests: Requests, tree: PrefixTree, results: Results | None) -> "FromSample":
        """Learn from the results whose ids are among the requests.

        Raises:
            BlendplanError: there is none.
        """
        assert results is not None, "takes_file says that there are results"
        rows = results.rows_in(requests.ids)
        found = rows >= 0
        if not found.any():
            raise BlendplanError(
                f"no id in {results.name} is among the requests; the first is "
                f"{results.ids[0].as_py()!r}; give the results of a sample of these requests, "
                "or history:FILE for those of another job"
            )
        self.rows_, self.output_tokens_ = rows[found], results.output_tokens[found]
        strata = strata_of(requests, tree)
        weights = sample_weights(requests, tree, self.rows_, strata)
        caps = requests.max_tokens[self.rows_]
        self.rule.fit(tree, self.rows_, self.output_tokens_, caps, weights)
        self.total_ = total_interval(requests, tree, self.rows_, self.output_tokens_, strata)
        self.note_ = _passed_over(results, len(results) - len(self.rows_))
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """By the rule; the sampled requests by themselves."""
        predicted = self.rule.predict(tree.node_of, requests.max_tokens)
        lengths = predicted.certain(self.rows_, self.output_tokens_)
        return replace(lengths, note=self.note_, total=self.total_)


def by_shrinkage() -> FromSample:
    """The predictor ``sample``."""
    return FromSample(ShrinkagePredictor())


def by_nearest_subtree() -> FromSample:
    """The predictor ``nearest``, the paper's rule."""
    return FromSample(NearestSubtreePredictor())


def _passed_over(results: Results, strangers: int) -> str:
    notes = [
        f"{strangers:,} with ids not among the requests" if strangers else "",
        f"{results.failed:,} that failed" if results.failed else "",
        f"{results.repeated:,} repeated" if results.repeated else "",
    ]
    passed_over = ", ".join(filter(None, notes))
    return f"passed over results in {results.name}: {passed_over}" if passed_over else ""
