"""Time GPU work as an engine runs it: captured in a CUDA graph, without CPU launch cost."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

WARM_CALLS = 3
REPLAYS = 5
# Time one graph for about this long per replay, so that the timer's own cost does not count.
TARGET_S = 2e-3


def gpu_facts() -> dict[str, Any]:
    """Name, size and software of the GPU in use."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": gpu_name(),
        "device": properties.name,
        "sm_count": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def gpu_name() -> str:
    """Name of the GPU in the style of the published tables, as ``h200-sxm``."""
    properties = torch.cuda.get_device_properties(0)
    device = str(properties.name).lower()
    if "a100" in device:
        return "a100-40g" if properties.total_memory < 60e9 else "a100-80g"
    for word in ("h200", "h100", "b200", "l40s", "l4", "a10g", "4090"):
        if word in device:
            return word + ("-sxm" if word in ("h200", "h100", "b200") else "")
    return device.replace(" ", "-")


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
    with torch.cuda.graph(graph, stream=side):
        launch()
    return graph


def replay_s(graph: torch.cuda.CUDAGraph, replays: int = REPLAYS) -> float:
    """Median seconds of one replay."""
    graph.replay()
    times = []
    for _ in range(replays):
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return float(statistics.median(times))


def call_s(call: Callable[[int], None], copies: int) -> float:
    """Seconds of one call, averaged over calls ``0 .. copies - 1`` in turn within one graph."""
    for index in range(WARM_CALLS):
        call(index % copies)
    torch.cuda.synchronize()
    started = time.perf_counter()
    call(0)
    torch.cuda.synchronize()
    guess_s = max(time.perf_counter() - started, 5e-6)
    calls = max(copies, min(60, int(TARGET_S / guess_s)))

    def launch() -> None:
        for index in range(calls):
            call(index % copies)

    return replay_s(captured(launch)) / calls


class Clock:
    """A limit on the time of a section, and its progress on standard output."""

    def __init__(self, name: str, limit_s: float, total: int) -> None:
        self.name, self.limit_s, self.total = name, limit_s, total
        self.started = self.told = time.perf_counter()
        self.done = 0

    def next(self) -> bool:
        """Count one more measurement; False once the limit is over."""
        now = time.perf_counter()
        if now - self.told > 10:
            print(f"{self.name}: {self.done}/{self.total}", flush=True)
            self.told = now
        self.done += 1
        return now - self.started < self.limit_s


def write_rows(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write a table with one row per measurement, times as float32."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    if "time_ms" in table.column_names:
        index = table.column_names.index("time_ms")
        table = table.set_column(index, "time_ms", table["time_ms"].cast(pa.float32()))
    pq.write_table(table, path, compression="zstd")
    print(f"{path.name}: {len(rows)} rows", flush=True)
