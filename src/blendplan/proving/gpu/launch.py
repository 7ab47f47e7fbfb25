"""What launches cost: a chain of small kernels one by one, against the same as a CUDA graph.

An engine that runs a step without a graph pays for every kernel that it launches; one that replays
a graph pays once, and for the gap between two replays.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from blendplan.proving.gpu.launch_costs import BACK_TO_BACK, ChainTimes, launch_costs
from blendplan.proving.gpu.timing import captured, elapsed_s
from blendplan.whole_file import replacing

# Kernels of a step: some ten per layer, of models with a few and with many layers.
CHAINS = (32, 128, 512)
ELEMENTS = 1024
REPEATS = 15


def measure(out: Path, limit_s: float) -> None:
    """Time all chains, and write what a launch costs."""
    started = time.perf_counter()
    measured = {}
    for kernels in CHAINS:
        measured[kernels] = chain_times(kernels)
        if time.perf_counter() - started > limit_s:
            break
    found = launch_costs(measured)
    with replacing(out / "launch.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found), flush=True)


def chain_times(kernels: int) -> ChainTimes:
    """Times of a chain of that many kernels that each add to 1,024 numbers."""
    numbers = torch.zeros(ELEMENTS, device="cuda")

    def launch() -> None:
        for _ in range(kernels):
            numbers.add_(1.0)

    graph = captured(launch)

    def replays() -> None:
        for _ in range(BACK_TO_BACK):
            graph.replay()

    ways: list[Callable[[], object]] = [launch, graph.replay, replays]
    for way in ways:
        way()
    torch.cuda.synchronize()
    eager, graph_s, replays_s = ([elapsed_s(way) for _ in range(REPEATS)] for way in ways)
    eager_cpu, graph_cpu = ([_cpu_s(way) for _ in range(REPEATS)] for way in ways[:2])
    return ChainTimes(eager, eager_cpu, graph_s, graph_cpu, replays_s)


def _cpu_s(launch: Callable[[], object]) -> float:
    """Seconds until the CPU is through with launching, the GPU idle before."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    launch()
    took_s = time.perf_counter() - started
    torch.cuda.synchronize()
    return took_s
