"""`launch_costs`: the price of a launch, from the times of chains of kernels."""

import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Replays one after the other that make the gap between them large enough to time.
BACK_TO_BACK = 20
QUANTILES = (0.05, 0.5, 0.95)


class ChainTimes(NamedTuple):
    """Seconds of one chain of kernels, several repeats of each.

    Attributes:
        eager: on the GPU from start to end, launched one by one.
        eager_cpu: until the last launch has returned.
        graph: on the GPU, as one replay of a graph.
        graph_cpu: until the call that replays it has returned.
        replays: on the GPU, of `BACK_TO_BACK` replays in a row.
    """

    eager: list[float]
    eager_cpu: list[float]
    graph: list[float]
    graph_cpu: list[float]
    replays: list[float]


def launch_costs(measured: Mapping[int, ChainTimes]) -> dict[str, object]:
    """What the times of chains say of launches.

    The line through the medians of all chain lengths gives the cost of one more kernel; a graph's
    gap is what a replay takes in a row of them beyond its kernels, its start what a single one
    takes beyond them.

    Args:
        measured: times by the number of kernels in the chain, at least one.

    Returns:
        JSON values: seconds per kernel ``eager_kernel_s``, ``eager_kernel_cpu_s`` and
        ``graph_kernel_s``; per replay ``graph_start_s``, ``graph_gap_s`` and ``graph_cpu_s`` (by
        kernels in the graph); and the ``chains`` with the 5, 50 and 95 % points of all times.
    """
    lengths = list(measured)
    middle = {
        field: [statistics.median(getattr(times, field)) for times in measured.values()]
        for field in ChainTimes._fields
    }
    graph_kernel_s, graph_start_s = _line(lengths, middle["graph"])
    in_a_row = [time_s / BACK_TO_BACK for time_s in middle["replays"]]
    return {
        "eager_kernel_s": _line(lengths, middle["eager"])[0],
        "eager_kernel_cpu_s": _line(lengths, middle["eager_cpu"])[0],
        "graph_kernel_s": graph_kernel_s,
        "graph_start_s": graph_start_s,
        "graph_gap_s": _line(lengths, in_a_row)[1],
        "graph_cpu_s": dict(zip(map(str, lengths), middle["graph_cpu"], strict=True)),
        "chains": [
            {"kernels": kernels}
            | {f"{field}_s": _spread(getattr(times, field)) for field in ChainTimes._fields}
            for kernels, times in measured.items()
        ],
    }


def _line(counts: Iterable[int], times_s: Iterable[float]) -> tuple[float, float]:
    """Slope and intercept over kernels; of a single chain, all of it is slope."""
    points = list(zip(counts, times_s, strict=True))
    if len(points) == 1:
        return points[0][1] / points[0][0], 0.0
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    return slope, intercept


def _spread(times_s: list[float]) -> list[float]:
    ordered = sorted(times_s)
    return [ordered[round(share * (len(ordered) - 1))] for share in QUANTILES]
