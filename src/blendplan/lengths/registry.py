"""`predict_lengths`: the output length of every request by the best that is known of it."""

import difflib

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import Results, read_results
from blendplan.lengths.history import HistoryPredictor
from blendplan.lengths.predicted import SOURCES, Lengths, Summary
from blendplan.lengths.prior import PriorPredictor
from blendplan.lengths.shrinkage import ShrinkagePredictor
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

METHODS = ("auto", "known", "prior", "sample:FILE", "history:FILE")


def predict_lengths(requests: Requests, tree: PrefixTree, method: str = "auto") -> Lengths:
    """Predict the output length of each request.

    Whatever the method, a stated ``output_tokens`` wins, and ``max_tokens`` caps mean and
    quantiles.

    Args:
        requests: n requests.
        tree: of those, before any split.
        method: for the requests that state no ``output_tokens``. ``auto`` and ``prior``: a stated
            prior, see `PriorPredictor`. ``known``: there must be none. ``sample:FILE``: from the
            results of sampled requests, see `ShrinkagePredictor`; the sampled ones themselves get
            the length they had. ``history:FILE``: from results of another job, see
            `HistoryPredictor`.

    Raises:
        BlendplanError: an unknown method, an output length that must be known and is not, or a
            results file that cannot be used.
    """
    name, _, file = method.partition(":")
    takes_file = name in ("sample", "history")
    if name not in ("auto", "known", "prior", "sample", "history") or bool(file) != takes_file:
        raise BlendplanError(_unknown_method(method))
    # A request that may generate one token generates one.
    outputs = np.where(requests.max_tokens == 1, 1, requests.output_tokens)
    known = outputs >= 0
    unknown = int(len(known) - np.count_nonzero(known))
    note = ""
    if takes_file:
        results = read_results(file)
        if name == "sample":
            predicted, note = _from_sample(requests, tree, results)
        else:
            predicted, note = _from_history(requests, results)
        source = SOURCES.index(name)
    else:
        if unknown and name == "known":
            first = int(np.flatnonzero(~known)[0])
            raise BlendplanError(
                f"{unknown:,} of {len(known):,} requests state no output_tokens, the first is "
                f"{requests.ids[first].as_py()!r}; add them or predict lengths in another way"
            )
        prior = PriorPredictor()
        predicted = prior.predict(requests.max_tokens)
        source = SOURCES.index("prior")
        if unknown:
            note = (
                f"output lengths of {unknown:,} of {len(known):,} requests are a guess "
                f"(log-normal, median {prior.median:.0f} tokens, cut off at max_tokens); "
                "a 1 % sample run first would do better"
            )

    cap = np.where(requests.max_tokens < 0, np.inf, requests.max_tokens.astype(np.float64))

    def column(values: NDArray[np.float64]) -> NDArray[np.float32]:
        lengths = np.where(known, outputs, values)
        return np.clip(lengths, 1.0, cap).astype(np.float32)

    return Lengths(
        mean=column(predicted.mean),
        p50=column(predicted.p50),
        p90=column(predicted.p90),
        source=np.where(known, SOURCES.index("known"), source).astype(np.int8),
        note=note,
    )


def _unknown_method(method: str) -> str:
    names = [known.partition(":")[0] for known in METHODS]
    near = difflib.get_close_matches(method.partition(":")[0], names, n=1)
    hint = f"did you mean {near[0]!r}? " if near and near[0] not in method else ""
    return f"unknown way to predict output lengths {method!r}; {hint}give {', '.join(METHODS)}"


def _from_sample(requests: Requests, tree: PrefixTree, results: Results) -> tuple[Summary, str]:
    """Prediction and note by the results whose ids are among the requests."""
    rows = results.rows_in(requests.ids)
    found = rows >= 0
    if not found.any():
        raise BlendplanError(
            f"no id in {results.name} is among the requests; the first is "
            f"{results.ids[0].as_py()!r}; give the results of a sample of these requests, "
            "or history:FILE for those of another job"
        )
    rows, lengths = rows[found], results.output_tokens[found]
    predictor = ShrinkagePredictor().fit(tree, rows, lengths, requests.max_tokens[rows])
    summary = predictor.predict(tree.node_of, requests.max_tokens)
    for column in summary:
        column[rows] = lengths
    strangers = len(results) - len(rows)
    notes = [
        f"{strangers:,} with ids not among the requests" if strangers else "",
        f"{results.failed:,} that failed" if results.failed else "",
        f"{results.repeated:,} repeated" if results.repeated else "",
    ]
    passed_over = ", ".join(filter(None, notes))
    return summary, f"passed over results in {results.name}: {passed_over}" if passed_over else ""


def _from_history(requests: Requests, results: Results) -> tuple[Summary, str]:
    """Prediction and note by the results of another job."""
    predictor = HistoryPredictor().fit(results.prompt_tokens, results.output_tokens)
    summary = predictor.predict(requests.prompt_tokens)
    return summary, (
        f"output lengths are those of {len(results):,} results in {results.name}"
        + (", by prompt length" if len(predictor.edges_) else ", one distribution for all")
        + "; a 1 % sample of these requests would do better"
    )
