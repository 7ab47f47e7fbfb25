"""`plausible_outputs`: output lengths as they may well turn out, where they are not known."""

import numpy as np
from numpy.typing import NDArray

from blendplan.requests.record import MOST_ANSWERS

# Of splitmix64; products wrap.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def plausible_outputs(
    outcomes: NDArray[np.floating], number: NDArray[np.int64], seed: int
) -> NDArray[np.int32]:
    """Known output lengths, and draws of uncertain ones; int32 [n].

    A draw lies between two outcomes next to each other, so that the mean of many is the expected
    length. It depends on nothing but its request's outcomes and number and on the seed: the same
    request has the same length in a plan, in a part of it and in its replay.

    Args:
        outcomes: equally likely output lengths of each request, rising; all are equal where the
            length is known; [n, k].
        number: of each request, all different, see `numbers_of`; int64 [n].
        seed: of the draws.
    """
    most = outcomes.shape[1] - 1
    place = np.clip(_uniform(number, seed) * (most + 1) - 0.5, 0.0, most)
    below = np.minimum(place.astype(np.int64), most - 1)
    rows = np.arange(len(outcomes))
    shorter = outcomes[rows, below].astype(np.float64)
    longer = outcomes[rows, below + 1].astype(np.float64)
    drawn = np.rint(shorter + (place - below) * (longer - shorter))
    return np.maximum(1, drawn).astype(np.int32)


def numbers_of(source_row: NDArray[np.int64], answer: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number of each answer of each request, all different; int64 [n].

    Args:
        source_row: of the request; int64 [n].
        answer: which answer of its request, from 0; int32 [n].
    """
    return source_row * MOST_ANSWERS + answer


def _uniform(number: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each; the generator is splitmix64; float64 [n]."""
    start = np.uint64((seed * 0xD1342543DE82EF95 + 1) % 2**64)
    mixed = (number.astype(np.uint64) + start) * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
