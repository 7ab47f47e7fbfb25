"""`KnownPredictor`: output lengths that the requests state, all of them."""

import numpy as np

from blendplan.errors import BlendplanError
from blendplan.lengths.earlier_results import Results
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.protocol import stated_lengths
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


class KnownPredictor:
    """Predicts nothing: every request must state its ``output_tokens``."""

    takes_file = False

    def fit(
        self, requests: Requests, tree: PrefixTree, results: Results | None
    ) -> "KnownPredictor":
        """See that there is nothing to predict.

        Raises:
            BlendplanError: a request states no length.
        """
        unknown = np.flatnonzero(stated_lengths(requests) < 0)
        if len(unknown):
            raise BlendplanError(
                f"{len(unknown):,} of {len(requests):,} requests state no output_tokens, the first "
                f"is {requests.ids[int(unknown[0])].as_py()!r}; add them or predict lengths in "
                "another way"
            )
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """The stated lengths."""
        return Lengths.stated(stated_lengths(requests))
