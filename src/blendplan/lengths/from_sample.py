"""`FromSample`: predictors that learn from results of some of the very requests."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import Results
from blendplan.lengths.from_prompts import lengths_from_prompts
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predicted import Lengths, Total
from blendplan.lengths.prior import COMMON_ERROR
from blendplan.lengths.protocol import stated_lengths
from blendplan.lengths.strata import strata_of
from blendplan.lengths.totals import total_interval
from blendplan.lengths.weights import sample_weights
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

Rule = Callable[
    [Requests, PrefixTree, NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]], Lengths
]
"""Lengths of all requests, from k rows, their output lengths, and what each stands for; [k]."""


class FromSample:
    """Matches results with requests by id and has a rule predict the rest from them.

    The sampled requests get the length that they had.

    Parameters:
        rule: what predicts.

    Attributes:
        rows_: the sampled requests; int64 [k].
        output_tokens_: their output lengths; int32 [k].
        weights_: requests that each stands for; float64 [k].
        total_: output tokens of all requests, by the samples and their weights.
        note_: which results were of no use, empty if none.
    """

    takes_file = True
    rows_: NDArray[np.int64]
    output_tokens_: NDArray[np.int32]
    weights_: NDArray[np.float64]
    total_: Total
    note_: str

    def __init__(self, rule: Rule) -> None:
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
        self.weights_ = sample_weights(requests, tree, self.rows_, strata)
        self.total_ = total_interval(requests, tree, self.rows_, self.output_tokens_, strata)
        self.note_ = _passed_over(results, len(results) - len(self.rows_))
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """By the rule; the sampled requests by themselves."""
        predicted = self.rule(requests, tree, self.rows_, self.output_tokens_, self.weights_)
        lengths = predicted.certain(self.rows_, self.output_tokens_)
        return replace(
            lengths, note=self.note_, total=self.total_, common_error=self._common_error(requests)
        )

    def _common_error(self, requests: Requests) -> float:
        """What the interval of the total says of the outputs that it is not sure of."""
        certain = stated_lengths(requests)
        certain[self.rows_] = self.output_tokens_
        answers = 1 if requests.answers is None else requests.answers
        sure = float((np.maximum(certain, 0) * answers).sum(dtype=np.float64))
        unsure = self.total_.tokens - sure
        if unsure <= 0.0:
            return 0.0
        above = np.log1p((self.total_.high - self.total_.tokens) / unsure)
        # However few they are, samples do not make less of what is known without any.
        return min(float(above / ndtri(0.5 + self.total_.level / 2)), COMMON_ERROR)


def by_prompts() -> FromSample:
    """The predictor ``sample``."""
    return FromSample(lengths_from_prompts)


def by_nearest_subtree() -> FromSample:
    """The predictor ``nearest``, the paper's rule."""
    return FromSample(
        lambda requests, tree, rows, output_tokens, weights: (
            NearestSubtreePredictor().fit(tree, rows, output_tokens).predict(tree.node_of)
        )
    )


def _passed_over(results: Results, strangers: int) -> str:
    notes = [
        f"{strangers:,} with ids not among the requests" if strangers else "",
        f"{results.failed:,} that failed" if results.failed else "",
        f"{results.repeated:,} repeated" if results.repeated else "",
    ]
    passed_over = ", ".join(filter(None, notes))
    return f"passed over results in {results.name}: {passed_over}" if passed_over else ""
