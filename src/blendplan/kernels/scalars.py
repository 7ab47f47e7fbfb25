"""`scalars`: named numbers that compiled code can change.

A kernel gets its state as arrays and cannot rebind a number. So the numbers of a state are an array
of one record with named fields: kernels take it out with ``now = state.now[0]`` and read and write
``now.running``, and so can Python.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def scalars(fields: np.dtype[Any], **values: Any) -> NDArray[Any]:
    """One record of these fields, all 0 but for the given ones; shape [1]."""
    record = np.zeros(1, fields).view(np.recarray)
    for name, value in values.items():
        record[name][0] = value
    return record
