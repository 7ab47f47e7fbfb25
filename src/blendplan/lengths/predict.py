"""`predict_lengths`: the output length of every request by the best that is known of it."""

from dataclasses import replace

import numpy as np

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import read_history, read_results
from blendplan.lengths.predicted import OUTCOMES, Lengths
from blendplan.lengths.protocol import longest_outputs, stated_lengths
from blendplan.lengths.registry import AUTO, predictor_of
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


def predict_lengths(requests: Requests, tree: PrefixTree, method: str = AUTO) -> Lengths:
    """Predict the output length of each request.

    Whatever the method, a stated ``output_tokens`` wins, and ``max_tokens`` caps mean and
    quantiles. No length is less than 1.

    Args:
        requests: n requests.
        tree: of those, before any split.
        method: for the requests that state no ``output_tokens``, a name in `LENGTH_PREDICTORS`,
            with the results file that some learn from. ``auto`` and ``prior``: a stated prior, see
            `PriorPredictor`. ``known``: there must be none. ``sample:FILE``: from the results of
            sampled requests, see `lengths_from_prompts`; the sampled ones themselves get the length
            they had. ``nearest:FILE``: the same by the paper's rule, see
            `NearestSubtreePredictor`. ``history:RESULTS`` or
            ``history:RESULTS+REQUESTS``: from results of another job, better with the requests
            that these answer, see `HistoryPredictor`.

    Raises:
        BlendplanError: an unknown method, an output length that must be known and is not, or a
            results file that cannot be used.
    """
    name, predictor, file = predictor_of(method)
    results = None
    if predictor.takes_file:
        with_requests = getattr(predictor, "takes_requests", False)
        results = read_history(file) if with_requests else read_results(file)
    predicted = predictor.fit(requests, tree, results).predict(requests, tree)
    _check(predicted, name, len(requests))
    stated = stated_lengths(requests)
    known = stated >= 0
    cap = longest_outputs(requests.max_tokens)
    lengths = predicted.certain(known, stated[known]).within(1.0, cap)
    return replace(lengths, known=known, source=name)


def _check(predicted: Lengths, name: str, n: int) -> None:
    """Refuse what no request can be planned with; predictors may be of third parties."""
    shapes = {"outcomes": (n, OUTCOMES), "p50": (n,), "p90": (n,)}
    for word, shape in shapes.items():
        column = getattr(predicted, word)
        if column.shape != shape:
            raise BlendplanError(
                f"length predictor {name!r}: {word} has the shape {list(column.shape)}; "
                f"expected {list(shape)}"
            )
        wrong = np.argwhere(~(np.isfinite(column) & (column >= 0.0)))
        if len(wrong):
            raise BlendplanError(
                f"length predictor {name!r}: {word} of request {wrong[0][0]} is "
                f"{column[tuple(wrong[0])]}; expected tokens, 0 or more"
            )
    falling = np.flatnonzero((np.diff(predicted.outcomes, axis=1) < 0).any(axis=1))
    if len(falling):
        raise BlendplanError(
            f"length predictor {name!r}: outcomes of request {falling[0]} do not rise; expected "
            f"{OUTCOMES} equally likely lengths, the shortest first"
        )
