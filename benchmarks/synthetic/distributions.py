"""Stated distributions, for sources that publish figures about their lengths but no trace.

All draws are stratified: one value from each of `count` equally likely parts of the distribution,
in random order. So even a few dozen long requests have the stated mean.
"""

from statistics import NormalDist

import numpy as np
from benchmarks.synthetic.rows import Rows, plain_rows
from numpy.typing import NDArray

OPENVID_MEAN_TOKENS = 16_000
# A log-uniform distribution has two parameters, and two facts about OpenVid are published: the mean
# above (paper, A.3) and the compute density 0.05 (table 4) for the 8B model on the A100. They ask
# for E[d^2] = 2 E[d]^2, which makes the longest 45 times as long as the shortest.
_OPENVID_SPREAD = 45.0
# Captions of clips, one paragraph each.
_OPENVID_PROMPT = (64, 192)

# Chosen so that density and sharing come out near the 2.13 and 0.19 of the paper's table 4; the
# wide spread stands for its remark that WildChat's output lengths vary much (A.4).
_WILDCHAT_OWN_MEAN, _WILDCHAT_OWN_SIGMA = 280.0, 1.3
_WILDCHAT_OUTPUT_MEAN, _WILDCHAT_OUTPUT_SIGMA = 350.0, 0.75
_WILDCHAT_TEMPLATES, _WILDCHAT_TEMPLATE_TOKENS, _WILDCHAT_TEMPLATE_SHARE = 40, 280, 0.18
_WILDCHAT_MOST_TOKENS = 8_192


def openvid_lengths(count: int, rng: np.random.Generator) -> Rows:
    """Video generation: outputs log-uniform with mean 16,000 tokens, 1,400 to 62,000."""
    low = OPENVID_MEAN_TOKENS * np.log(_OPENVID_SPREAD) / (_OPENVID_SPREAD - 1.0)
    output = low * _OPENVID_SPREAD ** _strata(count, rng)
    return plain_rows(_captions(count, rng), _tokens(output))


def openvid_clip_lengths(frames: NDArray[np.float64], count: int, rng: np.random.Generator) -> Rows:
    """Video generation: outputs in proportion to a list of clip lengths, mean 16,000 tokens.

    Args:
        frames: frames of some clips; values between them are interpolated.
        count: how many requests.
        rng: source of randomness.
    """
    ordered = np.sort(frames)
    clip = np.interp(_strata(count, rng), np.linspace(0.0, 1.0, len(ordered)), ordered)
    # The interpolated distribution's mean: trapezoids.
    mean = (ordered[1:] + ordered[:-1]).mean() / 2.0
    return plain_rows(_captions(count, rng), _tokens(clip * OPENVID_MEAN_TOKENS / mean))


def wildchat_rows(count: int, rng: np.random.Generator) -> Rows:
    """Chat like WildChat's: log-normal lengths, a fifth of the prompts begin with a template."""
    own = _log_normal(_WILDCHAT_OWN_MEAN, _WILDCHAT_OWN_SIGMA, count, rng)
    output = _log_normal(_WILDCHAT_OUTPUT_MEAN, _WILDCHAT_OUTPUT_SIGMA, count, rng)
    group = rng.integers(_WILDCHAT_TEMPLATES, size=count, dtype=np.int32)
    group[rng.random(count) >= _WILDCHAT_TEMPLATE_SHARE] = -1
    templates = np.full(_WILDCHAT_TEMPLATES, _WILDCHAT_TEMPLATE_TOKENS, np.int32)
    return Rows(
        _tokens(np.minimum(own, _WILDCHAT_MOST_TOKENS)),
        _tokens(np.minimum(output, _WILDCHAT_MOST_TOKENS)),
        group,
        templates,
    )


def _captions(count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    low, high = _OPENVID_PROMPT
    return _tokens(low + (high - low) * _strata(count, rng))


def _log_normal(
    mean: float, sigma: float, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    normal = NormalDist(np.log(mean) - sigma * sigma / 2.0, sigma)
    return np.exp([normal.inv_cdf(part) for part in _strata(count, rng)])


def _strata(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One number from the middle of each of `count` equal parts of (0, 1), in random order."""
    return (rng.permutation(count) + 0.5) / max(count, 1)


def _tokens(values: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.maximum(1, np.rint(values)).astype(np.int32)
