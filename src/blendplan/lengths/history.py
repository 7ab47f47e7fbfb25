"""`HistoryPredictor`: output lengths as in earlier results of the same kind of job."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtri

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import Results
from blendplan.lengths.features import request_features
from blendplan.lengths.from_prompts import ended_or_cut_off
from blendplan.lengths.learner import LengthLearner
from blendplan.lengths.predicted import Lengths
from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests, select
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree

# Jobs of one kind differ: their totals are within a factor of two of each other nine times in ten.
# An assumption, not a measurement.
_COMMON_ERROR = float(np.log(2.0) / ndtri(0.95))

Samples = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]
"""Features [k, f], lengths or what they exceed [k], and which of these it is [k]."""


class HistoryPredictor:
    """Learns from another job what its outputs say of these, see `LengthLearner`.

    With the requests of that job, from all that `request_features` says, in the prefix tree of both
    jobs together. Without them, from prompt lengths. Ids only match results with their own
    requests: those of another job name other requests. Results of some of the very same requests
    are a sample, see `FromSample`.

    Attributes:
        features_: of the requests to predict; float32 [n, f].
        learner_: what the results taught.
        note_: how many results, and what of their requests counts.
    """

    takes_file = True
    takes_requests = True
    features_: NDArray[np.float32]
    learner_: LengthLearner
    note_: str

    def fit(
        self, requests: Requests, tree: PrefixTree, results: Results | None
    ) -> "HistoryPredictor":
        """Learn from k results.

        Raises:
            BlendplanError: none of them answers any of the requests that came with them.
        """
        assert results is not None, "takes_file says that there are results"
        earlier = results.requests
        if earlier is not None and earlier.estimated_tokens == requests.estimated_tokens:
            samples = self._from_requests(requests, results, earlier)
            used = "by what their prompts say"
        else:
            samples = self._from_lengths(requests, results)
            used = "by prompt length" if samples[0].any() else "one distribution for all"
            if earlier is not None:
                used += ", since only the prompts of one of the two jobs are token ids"
        features, tokens, cut_off = samples
        self.learner_ = LengthLearner().fit(features, tokens, censored=cut_off)
        self.note_ = (
            f"output lengths are those of {len(tokens):,} results in {results.name}, {used}; "
            "a 1 % sample of these requests would do better"
        )
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """By what each request has in common with those of the results."""
        predicted = self.learner_.predict(self.features_)
        return replace(predicted, note=self.note_, common_error=_COMMON_ERROR)

    def _from_requests(self, requests: Requests, results: Results, earlier: Requests) -> Samples:
        """Samples with all features."""
        rows = results.rows_in(earlier.ids)
        found = rows >= 0
        if not found.any():
            raise BlendplanError(
                f"no id in {results.name} is among the requests in {earlier.source}; the first is "
                f"{results.ids[0].as_py()!r}; give the requests that these results answer"
            )
        answered = select(earlier, rows[found])
        both = _joined(requests, answered)
        features = request_features(both, build_tree(both))
        n = len(requests)
        self.features_ = features[:n]
        return features[n:], *ended_or_cut_off(results.output_tokens[found], answered.max_tokens)

    def _from_lengths(self, requests: Requests, results: Results) -> Samples:
        """Samples with one feature, which is all the same when a prompt length is not stated."""
        known = bool((results.prompt_tokens > 0).all())
        columns = (results.prompt_tokens, requests.prompt_tokens)
        features, self.features_ = (
            (np.log(column) if known else np.zeros(len(column))).astype(np.float32)[:, None]
            for column in columns
        )
        nothing_cut_off = np.zeros(len(results), dtype=np.bool_)
        return features, results.output_tokens.astype(np.int64), nothing_cut_off


def _joined(one: Requests, other: Requests) -> Requests:
    """Prompts and caps of both, one after the other."""
    count = len(one) + len(other)
    return Requests(
        ids=pa.nulls(count, pa.large_string()),
        source_row=np.arange(count),
        token_ids=np.concatenate([one.token_ids, other.token_ids]),
        offsets=offsets_of(np.concatenate([np.diff(one.offsets), np.diff(other.offsets)])),
        output_tokens=np.full(count, -1, dtype=np.int32),
        max_tokens=np.concatenate([one.max_tokens, other.max_tokens]),
        estimated_tokens=one.estimated_tokens,
    )
