"""`side_by_side`: a long range worked through in parts, on all cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def side_by_side(count: int, at_once: int, work: Callable[[slice], None]) -> None:
    """Call ``work`` with slices of ``range(count)``, each of which one thread works on.

    Args:
        count: length of the range.
        at_once: most that one slice holds.
        work: must release the GIL, as kernels do, for anything to be gained.
    """
    parts = [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, parts))
