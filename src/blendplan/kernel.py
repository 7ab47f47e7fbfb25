"""``@kernel``: compile a numeric loop with numba, cached on disk."""

from collections.abc import Callable
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a hot loop on first call and keep the machine code on disk.

    The GIL is released while it runs. Fast-math stays off, so that the same input gives the same
    floating-point results on every machine.
    """
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled
