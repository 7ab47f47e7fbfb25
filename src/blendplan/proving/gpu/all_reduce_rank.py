"""One process of a timed all-reduce; all of them run the same calls in step."""

import json
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from blendplan.proving.gpu.timing import WARM_CALLS, calls_for, chain_s, elapsed_s

REPEATS = 5
STUCK_AFTER = timedelta(seconds=60)


class Setting(NamedTuple):
    """What all processes agree on beforehand.

    Attributes:
        ranks: number of processes.
        backend: of torch.distributed: ``nccl``, a GPU for each; ``gloo``, on the CPU.
        meeting: URL at which they find each other.
        sizes: bytes of the messages, in the order in which they are timed.
        limit_s: seconds after which no other size is begun.
        rows: file into which the first process writes the rows, as JSON.
    """

    ranks: int
    backend: str
    meeting: str
    sizes: list[int]
    limit_s: float
    rows: str


def rank_process(rank: int, setting: Setting) -> None:
    """Time all sizes together with the other processes.

    Raises:
        ArithmeticError: a sum is wrong.
    """
    if setting.backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        setting.backend,
        init_method=setting.meeting,
        rank=rank,
        world_size=setting.ranks,
        timeout=STUCK_AFTER,
    )
    try:
        device = torch.device("cuda", rank) if setting.backend == "nccl" else torch.device("cpu")
        _check_sum(device, setting.ranks)
        time_call, source = _way_to_time(device, setting.backend)
        rows: list[dict[str, Any]] = []
        started = time.perf_counter()
        for size in setting.sizes:
            # One clock for all: a process that stopped alone would leave the others waiting.
            if _largest(time.perf_counter() - started, device) >= setting.limit_s:
                break
            message = torch.zeros(size // 2, dtype=torch.bfloat16, device=device)
            row = {"source": source, "dtype": "bf16", "ranks": setting.ranks, "bytes": size}
            rows.append(row | {"time_ms": 1e3 * _largest(time_call(message), device)})
        if rank == 0:
            Path(setting.rows).write_text(json.dumps(rows))
    finally:
        dist.destroy_process_group()


def _check_sum(device: torch.device, ranks: int) -> None:
    numbers = torch.full((1000,), float(dist.get_rank() + 1), dtype=torch.bfloat16, device=device)
    dist.all_reduce(numbers)
    if not bool((numbers == ranks * (ranks + 1) / 2).all()):
        raise ArithmeticError(f"the all-reduce over {ranks} ranks gives a wrong sum")


def _largest(value: float, device: torch.device) -> float:
    """The largest of the values that the processes have."""
    values = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return float(values.item())


def _way_to_time(device: torch.device, backend: str) -> tuple[Callable[[torch.Tensor], float], str]:
    """How to time a call here, and what to call it: within a CUDA graph, where that works."""
    if device.type == "cpu":
        return _wall_s, backend
    works = 1.0
    try:
        _graph_s(torch.zeros(4096, dtype=torch.bfloat16, device=device))
    except RuntimeError as error:
        print(f"all_reduce: no CUDA graph: {str(error).splitlines()[0]}", flush=True)
        works = 0.0
    if _largest(1.0 - works, device) == 0.0:
        return _graph_s, f"{backend}_graph"
    return _eager_s, f"{backend}_eager"


def _graph_s(message: torch.Tensor) -> float:
    return chain_s(lambda _: dist.all_reduce(message), _calls(message))


def _eager_s(message: torch.Tensor) -> float:
    calls = _calls(message)

    def launch() -> None:
        for _ in range(calls):
            dist.all_reduce(message)

    return statistics.median(elapsed_s(launch) for _ in range(REPEATS)) / calls


def _wall_s(message: torch.Tensor) -> float:
    calls = _calls(message)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(calls):
            dist.all_reduce(message)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / calls


def _calls(message: torch.Tensor) -> int:
    """How many calls to time, the same in all processes."""
    for _ in range(WARM_CALLS):
        dist.all_reduce(message)
    _wait(message.device)
    started = time.perf_counter()
    dist.all_reduce(message)
    _wait(message.device)
    return calls_for(_largest(time.perf_counter() - started, message.device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
