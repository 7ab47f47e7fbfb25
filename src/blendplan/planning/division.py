"""`assign_replicas`: parts of equal work and density for data-parallel engines (paper 5.5)."""

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.kernels.kernel import kernel
from blendplan.tree.prefix_tree import PrefixTree

# A first attempt moves subtrees of up to this share of a part as a whole; later ones divide more.
_COARSEST = 0.25
_ATTEMPTS = 9
FINEST = _COARSEST / 2 ** (_ATTEMPTS - 1)
"""The last attempt moves up to this share of a part as a whole."""

# Parts that differ by less than this share of their time are equal.
_EQUAL = 0.002


def assign_replicas(
    tree: PrefixTree,
    compute_s: NDArray[np.float64],
    memory_s: NDArray[np.float64],
    replicas: int,
) -> NDArray[np.int32]:
    """Divide the requests into parts of equal compute and equal memory time.

    The tree is cut into runs of neighbouring subtrees, as large as a part can take without
    unbalancing it. They go, largest first, each to the part that has the least of what it brings.
    Parts with equal compute and equal memory time take equally long under every overlap exponent,
    and have the density of the whole. Cutting at subtree boundaries keeps shared prefixes together;
    finer cuts are tried only until the parts are equal.

    Args:
        tree: over n requests, before any split.
        compute_s: compute time of each request, shared prefixes divided among those that share
            them; float64 [n].
        memory_s: memory time of each request; float64 [n].
        replicas: number of parts.

    Returns:
        Part of each request, from 0; int32 [n]. No part is empty unless there are fewer requests.

    Raises:
        BlendplanError: fewer than one replica.
    """
    if replicas < 1:
        raise BlendplanError(f"{replicas} replicas: there must be at least 1")
    part = np.zeros(len(tree), dtype=np.int32)
    if replicas == 1 or not len(tree):
        return part
    compute = _shares(compute_s, replicas)[tree.order]
    memory = _shares(memory_s, replicas)[tree.order]
    best = np.inf
    for attempt in range(_ATTEMPTS):
        bounds = neighbours(tree, compute, memory, _COARSEST / 2**attempt)
        run_compute = np.add.reduceat(compute, bounds[:-1])
        run_memory = np.add.reduceat(memory, bounds[:-1])
        order = np.argsort(-np.maximum(run_compute, run_memory), kind="stable")
        chosen, worst = _deal(run_compute, run_memory, order, replicas)
        if worst < best - _EQUAL / 10:
            best = worst
            part[tree.order] = np.repeat(chosen, np.diff(bounds))
        if worst <= 1.0 + _EQUAL or len(bounds) > len(tree):
            break
    return part


def neighbours(
    tree: PrefixTree, compute: NDArray[np.float64], memory: NDArray[np.float64], limit: float
) -> NDArray[np.int64]:
    """Where runs of neighbouring subtrees begin in depth-first order, and the end of the last.

    Args:
        tree: over n requests.
        compute, memory: of each request in depth-first order, in any unit; float64 [n].
        limit: most of either that a run has, unless it is a single request.
    """
    return _runs(
        tree.parent,
        tree.next_sibling,
        tree.first_child,
        tree.request_start,
        tree.request_end,
        _running(compute),
        _running(memory),
        limit,
    )


def _shares(demand_s: NDArray[np.float64], replicas: int) -> NDArray[np.float64]:
    """Each request's demand in units of one part's."""
    total = float(demand_s.sum())
    shares: NDArray[np.float64] = demand_s * (replicas / total if total > 0 else 0.0)
    return shares


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


@kernel
def _runs(
    parent: NDArray[np.int32],
    next_sibling: NDArray[np.int32],
    first_child: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    compute: NDArray[np.float64],
    memory: NDArray[np.float64],
    limit: float,
) -> NDArray[np.int64]:
    """Where runs of requests begin in depth-first order, and the end of the last.

    A run holds neighbouring subtrees with the same parent, or requests that end at the same node,
    and weighs at most ``limit`` unless it is a single request.
    """
    bounds = np.empty(end[0] + 1, dtype=np.int64)
    count = 0
    node = 0
    while node >= 0:
        if _weight(compute, memory, start[node], end[node]) <= limit and node > 0:
            # The subtree is light: its siblings join it while they fit.
            begin = start[node]
            last = node
            while next_sibling[last] >= 0:
                if _weight(compute, memory, begin, end[next_sibling[last]]) > limit:
                    break
                last = next_sibling[last]
            bounds[count] = begin
            count += 1
            node = _after(parent, next_sibling, last)
            continue
        # The requests that end here come before those of the children.
        child = first_child[node]
        own_end = start[child] if child >= 0 else end[node]
        at = start[node]
        while at < own_end:
            bounds[count] = at
            count += 1
            begin = at
            at += 1
            while at < own_end and _weight(compute, memory, begin, at + 1) <= limit:
                at += 1
        node = child if child >= 0 else _after(parent, next_sibling, node)
    bounds[count] = end[0]
    return bounds[: count + 1].copy()


@kernel
def _after(parent: NDArray[np.int32], next_sibling: NDArray[np.int32], node: int) -> int:
    """The node that follows a whole subtree in depth-first order, -1 at the end."""
    while node >= 0 and next_sibling[node] < 0:
        node = parent[node]
    return next_sibling[node] if node >= 0 else -1


@kernel
def _weight(
    compute: NDArray[np.float64], memory: NDArray[np.float64], begin: int, end: int
) -> float:
    return max(compute[end] - compute[begin], memory[end] - memory[begin])


@kernel
def _deal(
    compute: NDArray[np.float64],
    memory: NDArray[np.float64],
    order: NDArray[np.int64],
    replicas: int,
) -> tuple[NDArray[np.int32], float]:
    """Part of each run, and the largest load of any part; 1 is a part's fair share."""
    chosen = np.zeros(len(compute), dtype=np.int32)
    compute_load = np.zeros(replicas)
    memory_load = np.zeros(replicas)
    for run in order:
        best = 0
        least = np.inf
        for part in range(replicas):
            load = compute_load[part] * compute[run] + memory_load[part] * memory[run]
            # Work that weighs nothing goes round, so that no part stays empty.
            load += 1e-9 * (compute_load[part] + memory_load[part])
            if load < least:
                best, least = part, load
        chosen[run] = best
        compute_load[best] += compute[run]
        memory_load[best] += memory[run]
    return chosen, max(compute_load.max(), memory_load.max())
