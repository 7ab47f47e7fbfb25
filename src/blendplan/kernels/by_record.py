"""`by_record`: one name for kernels that do the same with records of different kinds."""

from collections.abc import Callable, Mapping
from typing import Any

from numba import types


def by_record(kernels: Mapping[type, Callable[..., object]]) -> Any:
    """A kernel that is one of several, by the type of its first argument.

    Which one is known when the caller is compiled: it costs nothing when it runs, and a caller that
    is compiled for one kind of record has no code for the others.

    Args:
        kernels: the kernel for each type of record, a `NamedTuple`.
    """
    return ByRecord(kernels)


class ByRecord:
    """Several kernels. Callers that are compiled take it for the one that fits."""

    def __init__(self, kernels: Mapping[type, Any]) -> None:
        self.kernels = dict(kernels)
        # What numba asks a function that it has compiled for: here, one of several answers.
        self._numba_type_ = types.Dispatcher(self)
        self.nopython_signatures: list[Any] = []
        # Of a kernel that calls itself.
        self.is_compiling = False

    def __call__(self, record: Any, *arguments: Any) -> Any:
        """Call it from Python."""
        return self.kernels[type(record)](record, *arguments)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Compile the kernel for arguments of these types."""
        return self.kernels[args[0].instance_class].get_call_template(args, kws)

    def get_overload(self, args: Any) -> Any:
        """Its code."""
        return self.kernels[args[0].instance_class].get_overload(args)
