"""`PriorPredictor`: what to expect of an output when nothing is known of its kind."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from blendplan.lengths.predicted import Summary


class PriorPredictor:
    """A log-normal output length, cut off at ``max_tokens``.

    The defaults are those of public chat traces: the logarithm of the output length has a mean of
    log 210 and a standard deviation of 1.14 in ShareGPT, log 208 and 1.36 in Mooncake's
    conversations, log 151 and 0.86 in Azure's. Other tasks differ tenfold either way, so this is
    only better than nothing; a stated cap helps most when it is small.

    Parameters:
        median: output length in tokens that half of the outputs exceed, without a cap.
        sigma: standard deviation of the output length's logarithm.
    """

    def __init__(self, median: float = 200.0, sigma: float = 1.1) -> None:
        self.median = median
        self.sigma = sigma

    def predict(self, max_tokens: NDArray[np.int32]) -> Summary:
        """Mean and quantiles of min(X, cap) for a log-normal X.

        Args:
            max_tokens: cap on each output, -1 where there is none; int32 [n].
        """
        caps, place = np.unique(max_tokens, return_inverse=True)
        cap = np.where(caps < 0, np.inf, caps.astype(np.float64))
        mu, sigma = np.log(self.median), self.sigma
        z = (np.log(np.maximum(cap, 1.0)) - mu) / sigma
        # E[min(X, c)] = E[X] Phi(z - sigma) + c (1 - Phi(z)), z the cap in standard deviations.
        above = np.where(np.isinf(cap), 0.0, cap) * ndtr(-z)
        mean = np.exp(mu + sigma * sigma / 2) * ndtr(z - sigma) + above
        p50, p90 = (np.minimum(np.exp(mu + sigma * ndtri(q)), cap) for q in (0.5, 0.9))
        return Summary(mean[place], p50[place], p90[place])
