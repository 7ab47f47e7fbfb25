"""`on_ray`: the tasks of a large plan on a Ray cluster."""

import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from blendplan.cluster.connect import connected
from blendplan.errors import BlendplanError

Item = TypeVar("Item")
Result = TypeVar("Result")

# More of them wait for a core than there are, so that none idles while results are fetched.
_WAITING_PER_CORE = 2


@contextmanager
def on_ray(address: str, folder: Path) -> Iterator["RayTasks"]:
    """Tasks on a cluster; address as of `connected`, folder as of `RayTasks`."""
    with connected(address) as ray:
        yield RayTasks(ray, folder)


class RayTasks:
    """Tasks on a Ray cluster, each on one core; what a lost node was doing is done again.

    Parameters:
        ray: the module, connected.
        folder: which all nodes must see.
    """

    def __init__(self, ray: Any, folder: Path) -> None:
        self._ray = ray
        self._folder = folder

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
