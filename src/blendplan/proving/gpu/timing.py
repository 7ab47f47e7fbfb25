"""Time GPU work as an engine runs it: captured in a CUDA graph, without CPU launch cost."""

import statistics
import time
from collections.abc import Callable

import torch

WARM_CALLS = 3
REPLAYS = 5
# Time one graph for about this long per replay, so that the timer's own cost does not count.
TARGET_S = 2e-3
MOST_CALLS = 60


def captured(
    launch: Callable[[], None], stream: torch.cuda.Stream | None = None
) -> torch.cuda.CUDAGraph:
    """A CUDA graph of what ``launch`` enqueues, warmed up before capture."""
    side = stream or torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        launch()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Threads of torch.distributed may call CUDA meanwhile.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        launch()
    return graph


def replay_s(graph: torch.cuda.CUDAGraph, replays: int = REPLAYS) -> float:
    """Median seconds of one replay."""
    graph.replay()
    return statistics.median(elapsed_s(graph.replay) for _ in range(replays))


def elapsed_s(launch: Callable[[], object]) -> float:
    """Seconds on the GPU from before to after what ``launch`` enqueues, once it has run."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    launch()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e-3


def call_s(call: Callable[[int], None], copies: int) -> float:
    """Seconds of one call, averaged over calls ``0 .. copies - 1`` in turn within one graph."""
    for index in range(WARM_CALLS):
        call(index % copies)
    torch.cuda.synchronize()
    started = time.perf_counter()
    call(0)
    torch.cuda.synchronize()
    guess_s = time.perf_counter() - started
    return chain_s(lambda index: call(index % copies), max(copies, calls_for(guess_s)))


def chain_s(call: Callable[[int], object], calls: int) -> float:
    """Seconds of one call, averaged over calls ``0 .. calls - 1`` within one graph."""

    def launch() -> None:
        for index in range(calls):
            call(index)

    return replay_s(captured(launch)) / calls


def calls_for(guess_s: float) -> int:
    """How many calls of about that many seconds make one measurement."""
    return max(1, min(MOST_CALLS, int(TARGET_S / max(guess_s, 5e-6))))
