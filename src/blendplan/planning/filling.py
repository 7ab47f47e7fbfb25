"""`fill`: as many groups of requests as end in time, found by trying."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.planfile.plan import Plan

# A window of which this share is planned for is full.
_FULL = 0.97
_MOST_TRIALS = 8


@dataclass(frozen=True)
class Trial:
    """The plan of some requests, and by when it ends with the probability of the window."""

    plan: Plan
    end_s: float


def that_fit_alone(
    trial: Callable[[Sequence[NDArray[np.int64]]], Trial],
    seconds: NDArray[np.float64],
    within_s: float,
) -> NDArray[np.int64]:
    """The requests that end in time if nothing else runs; rising.

    Args:
        trial: of some requests.
        seconds: a guess at how long each takes by itself, good enough to order them; float64 [n].
        within_s: the limit.
    """
    order = np.argsort(seconds, kind="stable")

    def is_too_long(place: int) -> bool:
        return trial([order[place : place + 1]]).end_s > within_s

    if not is_too_long(len(order) - 1):
        return np.arange(len(order))
    return np.sort(order[: bisect_left(range(len(order) - 1), True, key=is_too_long)])


def fill_in_parts(
    trial: Callable[[Sequence[NDArray[np.int64]]], Trial],
    groups: Sequence[NDArray[np.int64]],
    seconds: NDArray[np.float64],
    alone_s: NDArray[np.float64],
    within_s: float,
    skips: int,
) -> Trial:
    """As `fill`, but of a first group that is too long as a whole, a part is taken.

    Args:
        trial, groups, seconds, within_s, skips: as of `fill`; one of the requests fits.
        alone_s: a guess at how long each request takes by itself; float64 [n].
    """
    while (best := fill(trial, groups, seconds, within_s, skips)) is None:
        # Its requests one by one, short ones first: a long one takes up the window with little
        # beside it. One that is too long by itself, against the guess, is passed over.
        first = groups[0][np.argsort(alone_s[groups[0]], kind="stable")]
        parts = np.split(first, len(first)) if len(first) > 1 else []
        groups = [*parts, *groups[1:]]
        seconds = np.append(np.full(len(parts), seconds[0] / len(first)), seconds[1:])
    return best


def fill(
    trial: Callable[[Sequence[NDArray[np.int64]]], Trial],
    groups: Sequence[NDArray[np.int64]],
    seconds: NDArray[np.float64],
    within_s: float,
    skips: int,
) -> Trial | None:
    """The trial of as many groups as fit, in their order; None where not even the first does.

    Args:
        trial: of some groups.
        groups: requests that stay together.
        seconds: a guess at how long each group takes; float64 [g].
        within_s: the limit.
        skips: how many groups that do not fit may be passed over for later ones.
    """
    left = list(range(len(groups)))
    best, count = None, 0
    for _ in range(1 + skips):
        best, count = most_that_fits(
            lambda most, left=left: trial([groups[one] for one in left[:most]]),  # type: ignore[misc]
            np.cumsum(seconds[left]),
            within_s,
            (best, count),
        )
        if best is None or count == len(left) or best.end_s >= _FULL * within_s:
            break
        del left[count]
        if count == len(left):
            break
    return best


def most_that_fits(
    trial: Callable[[int], Trial],
    seconds: NDArray[np.float64],
    within_s: float,
    known: tuple[Trial | None, int] = (None, 0),
) -> tuple[Trial | None, int]:
    """The trial of the largest count that ends in time, or nearly the largest, and the count.

    Args:
        trial: of the first so many groups; by and large, more of them take longer.
        seconds: a guess at how long the first 1, 2, ... groups take, rising; float64 [g].
        within_s: the limit.
        known: a count that fits, and its trial.

    Returns:
        None and 0 where not even one fits.
    """
    best, least = known
    most = len(seconds)  # all above `most` take too long, `least` fits
    longer = 1.0  # than guessed
    if best is not None and seconds[least - 1] > 0:
        longer = best.end_s / seconds[least - 1]
    tried = 0
    while least < most and (tried < _MOST_TRIALS or best is None):
        guess = int(np.searchsorted(longer * seconds, within_s, side="right"))
        count = min(most, max(least + 1, guess))
        if tried >= _MOST_TRIALS:
            count = max(1, most // 2)
        made = trial(count)
        tried += 1
        longer = made.end_s / seconds[count - 1] if seconds[count - 1] > 0 else 1.0
        if made.end_s <= within_s:
            best, least = made, count
            if made.end_s >= _FULL * within_s:
                break
        else:
            # A little less than what seems to fit, so that the next trial is likely to.
            most, longer = count - 1, 1.01 * longer
    return best, least
