"""What a run's Ray cluster has room for."""

from typing import Any


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
