"""A run's Ray cluster: found or started, and asked what fits."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.replaying.cluster.options import AUTO, LOCAL, Cluster

_KNOCK_S = 10.0


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Within it, this process is a driver of the cluster; gives the module ``ray``.

    A connection that was there before stays.

    Raises:
        BlendplanError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise BlendplanError(
            f"Ray cannot be imported ({error}); python -m pip install 'blendplan[ray]' adds it"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address == LOCAL:
        ray.init(address="local", include_dashboard=False, **quiet)
    else:
        try:
            _knock(cluster.address)
            ray.init(address=cluster.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(cluster.address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out at once whether anybody listens there: Ray would try for minutes.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


def _no_cluster(address: str, error: Exception) -> BlendplanError:
    said = str(error).strip().splitlines()
    reason = said[0] if said else type(error).__name__
    if address == AUTO:
        return BlendplanError(
            f"no Ray cluster is running on this machine ({reason}); start one with `ray start "
            "--head`, give its address, or use --ray local"
        )
    return BlendplanError(
        f"no Ray cluster answers at {show(address)} ({reason}); give the address that `ray start` "
        "printed on the head node, or auto on a node of the cluster"
    )


def replicas_that_fit(ray: Any, cpus: int, gpus: int) -> int:
    """Engines that the nodes of the cluster have room for, each on one node."""
    fits = 0
    for node in _nodes(ray):
        by_cpu = int(node.get("CPU", 0) // cpus)
        fits += min(by_cpu, int(node.get("GPU", 0) // gpus)) if gpus else by_cpu
    return fits


def seen(ray: Any) -> str:
    """What the cluster has, in words."""
    nodes = _nodes(ray)
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    cpus = sum(int(node.get("CPU", 0)) for node in nodes)
    each = f", at most {max(gpus)} on one" if len(nodes) > 1 and any(gpus) else ""
    return f"{sum(gpus)} GPUs and {cpus} CPUs on {len(nodes)} node{'s' * (len(nodes) != 1)}{each}"


def _nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
