"""`gather`: some of many prompts, one after the other."""

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel


@kernel
def gather(
    token_ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    total: int,
) -> NDArray[np.int32]:
    """Token ids of the prompts at some rows, in that order; int32 [total].

    Args:
        token_ids, offsets: of all prompts, as in `Requests`.
        rows: which of them; int64 [m].
        total: how many tokens they have together.
    """
    values = np.empty(total, dtype=np.int32)
    at = 0
    for row in rows:
        for token in range(offsets[row], offsets[row + 1]):
            values[at] = token_ids[token]
            at += 1
    return values
