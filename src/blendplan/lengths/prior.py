"""`PriorPredictor`: what to expect of an output when nothing is known of its kind."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from blendplan.lengths.earlier_results import Results
from blendplan.lengths.predicted import OUTCOMES, Lengths
from blendplan.lengths.protocol import stated_lengths
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

MEDIAN = 200.0
"""Output length in tokens that half of the outputs exceed where nothing is known."""

SIGMA = 1.1
"""Standard deviation of the logarithm of such a length."""

COMMON_ERROR = float(np.log(10.0) / ndtri(0.95))
"""The median of a task is within a factor of ten of this one nine times in ten; see the class."""


def note_of_guesses(unknown: int, requests: int, median: float = MEDIAN) -> str:
    """What a plan says where so many of its requests have a guess for a length."""
    return (
        f"output lengths of {unknown:,} of {requests:,} requests are a guess "
        f"(log-normal, median {median:.0f} tokens, cut off at max_tokens); "
        "a 1 % sample run first would do better"
    )


class PriorPredictor:
    """A log-normal output length, cut off at ``max_tokens``.

    The defaults are those of public chat traces, rounded: the logarithm of the output length has a
    mean of log 210 and a standard deviation of 1.14 in ShareGPT, log 208 and 1.36 in Mooncake's
    conversations, log 151 and 0.86 in Azure's. Other tasks differ tenfold either way, so this is
    only better than nothing; a stated cap helps most when it is small.

    Parameters:
        median: output length in tokens that half of the outputs exceed, without a cap.
        sigma: standard deviation of the output length's logarithm.
    """

    takes_file = False

    def __init__(self, median: float = MEDIAN, sigma: float = SIGMA) -> None:
        self.median = median
        self.sigma = sigma

    def fit(
        self, requests: Requests, tree: PrefixTree, results: Results | None
    ) -> "PriorPredictor":
        """Learn nothing: that is what a prior is for."""
        return self

    def predict(self, requests: Requests, tree: PrefixTree) -> Lengths:
        """By ``max_tokens`` alone, with a note on how many lengths are guessed."""
        unknown = int(np.count_nonzero(stated_lengths(requests) < 0))
        note = note_of_guesses(unknown, len(requests), self.median) if unknown else ""
        guessed = Lengths.predicted(*self.cut_off(requests.max_tokens), note=note)
        return replace(guessed, common_error=COMMON_ERROR)

    def cut_off(
        self, max_tokens: NDArray[np.int32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The distribution of min(X, cap) for a log-normal X.

        Args:
            max_tokens: cap on each output, -1 where there is none; int32 [n].

        Returns:
            Outcomes, the mean of each tenth; float64 [n, OUTCOMES]; p50 and p90; float64 [n] each.
        """
        caps, place = np.unique(max_tokens, return_inverse=True)
        cap = np.where(caps < 0, np.inf, caps.astype(np.float64))
        mu, sigma = np.log(self.median), self.sigma
        z = (np.log(np.maximum(cap, 1.0)) - mu) / sigma
        # E[min(X, c)] = E[X] Phi(z - sigma) + c (1 - Phi(z)), z the cap in standard deviations, and
        # so within each tenth.
        cuts, z = ndtri(np.arange(OUTCOMES + 1) / OUTCOMES), z[:, None]
        under = np.exp(mu + sigma * sigma / 2) * np.diff(ndtr(np.minimum(cuts, z) - sigma))
        above = np.where(np.isinf(cap), 0.0, cap)[:, None] * np.diff(ndtr(np.maximum(cuts, z)))
        outcomes = np.maximum.accumulate(OUTCOMES * (under + above), axis=1)
        p50, p90 = (np.minimum(np.exp(mu + sigma * ndtri(q)), cap) for q in (0.5, 0.9))
        return outcomes[place], p50[place], p90[place]
