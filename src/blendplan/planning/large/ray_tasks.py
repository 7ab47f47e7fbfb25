"""`RayTasks`: the tasks of a large plan on a Ray cluster."""

import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from blendplan.errors import BlendplanError
from blendplan.printable import show

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"
# More of them wait for a core than there are, so that none idles while results are fetched.
_WAITING_PER_CORE = 2


class RayTasks:
    """Tasks on a Ray cluster, each on one core; what a lost node was doing is done again.

    Parameters:
        address: ``local`` for a cluster of this machine alone, ``auto`` for the one that this
            machine is in, or an address.
        folder: which all nodes must see.

    Use as a context manager. A connection that the program has already is used and left open.

    Raises:
        BlendplanError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, folder: Path) -> None:
        try:
            import ray
        except ImportError:
            raise BlendplanError(
                "Ray is not installed; pip install 'blendplan[ray]', or plan without --ray"
            ) from None
        self._ray: Any = ray
        self._address = address
        self._folder = folder
        self._is_ours = False

    def __enter__(self) -> "RayTasks":
        if self._ray.is_initialized():
            return self
        quiet = {"include_dashboard": False} if self._address == LOCAL else {}
        try:
            self._ray.init(
                self._address, log_to_driver=False, logging_level="ERROR", configure_logging=False,
                **quiet,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise BlendplanError(
                f"no Ray cluster at {show(self._address)} ({reason}); start one with `ray start "
                "--head`, or give --ray local"
            ) from None
        self._is_ours = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """See `Tasks.map`."""
        remote = self._ray.remote(num_cpus=1)(_call)
        function_at = self._ray.put(function)
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(remote.remote(str(self._folder), function_at, item))
            cores = int(self._ray.cluster_resources().get("CPU", 1))
            if len(waiting) > _WAITING_PER_CORE * max(1, cores):
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, BlendplanError):
                raise BlendplanError(str(error.cause)) from None
            raise
        except errors.RayError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise BlendplanError(
                f"a planning task on the cluster ended without an answer ({reason}); more replicas "
                "take less memory each"
            ) from None


def _call(folder: str, function: Callable[[Any], Any], item: Any) -> Any:
    if not Path(folder).is_dir():
        raise BlendplanError(
            f"node {socket.gethostname()} does not see the folder {folder}; let -o be on a file "
            "system that all nodes share"
        )
    return function(item)
