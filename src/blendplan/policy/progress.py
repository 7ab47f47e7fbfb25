"""`Progress`: how far a run is, as whoever runs the steps tells it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Progress:
    """How far a run of n requests is.

    Attributes:
        running: requests in the engine that hold room, in order of admission; int64 [m].
        admitted: whether the engine has been given the request; bool [n].
        finished: whether it is done; bool [n].
        generated: output tokens so far; int32 [n].
        entering: requests that the engine admits before all others, because it has been given them
            with one that is admitted: further answers of that; int64.
    """

    running: NDArray[np.int64]
    admitted: NDArray[np.bool_]
    finished: NDArray[np.bool_]
    generated: NDArray[np.int32]
    entering: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def carried(values: NDArray[Any], kept: NDArray[np.int64], new: Any = 0) -> NDArray[Any]:
    """What was noted of each request, when a policy goes on with others.

    Args:
        values: of the requests before; [m, ...].
        kept: number that each request had before, -1 of a new one; int64 [n].
        new: value of the new ones.

    Returns:
        the same of the n requests.
    """
    result = np.full((len(kept), *values.shape[1:]), new, dtype=values.dtype)
    result[kept >= 0] = values[kept[kept >= 0]]
    return result
