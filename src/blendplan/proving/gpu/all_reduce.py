"""All-reduce times between the GPUs of this machine, by NCCL: one process for each GPU."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from blendplan.proving.gpu.all_reduce_rank import Setting, rank_process
from blendplan.proving.gpu.cases import Row, shuffled, write_rows
from blendplan.proving.gpu.machine import gpu_name

# Octaves from 8 KiB to 256 MiB, and the middles between them.
SIZES = tuple(
    size for octave in range(13, 29) for size in (1 << octave, 3 << (octave - 1)) if size <= 1 << 28
)
# Start of the processes and of their communicator, which is not counted.
START_S = 120.0


def measure(out: Path, limit_s: float) -> None:
    """Time all sizes between 2, 4, 8, ... and all GPUs; nothing to do where there is one."""
    gpus = torch.cuda.device_count()
    if gpus < 2:
        print("all_reduce: there is one GPU, so nothing to reduce over", flush=True)
        return
    counts = rank_counts(gpus)
    rows = []
    for ranks in counts:
        rows += time_ranks(ranks, "nccl", SIZES, limit_s / len(counts))
    write_rows([_named(row) for row in rows], out / "all_reduce.parquet")


def rank_counts(gpus: int) -> list[int]:
    """How many GPUs share a model at a time: powers of two, and all of them."""
    return sorted({1 << power for power in range(1, gpus.bit_length())} | {gpus})


def time_ranks(ranks: int, backend: str, sizes: Sequence[int], limit_s: float) -> list[Row]:
    """Rows of as many message sizes as the limit allows, in random order.

    Args:
        ranks: processes, each on a GPU of its own (with ``gloo``, on the CPU).
        backend: of torch.distributed.
        sizes: bytes of a message.
        limit_s: seconds.

    Raises:
        TimeoutError: the processes did not end; they have been killed.
        Exception: what a process raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        meeting = f"file://{folder}/meeting"
        setting = Setting(ranks, backend, meeting, shuffled(sizes), limit_s, str(rows))
        _run(setting, limit_s + START_S)
        found: list[Row] = json.loads(rows.read_text())
    print(f"all_reduce: {ranks} ranks, {len(found)} sizes", flush=True)
    return found


def _run(setting: Setting, wait_s: float) -> None:
    """All processes to their end, or none of them."""
    deadline = time.monotonic() + wait_s
    context = torch.multiprocessing.spawn(
        rank_process, (setting,), nprocs=setting.ranks, join=False
    )
    try:
        while not context.join(timeout=max(0.1, min(1.0, deadline - time.monotonic()))):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{setting.ranks} ranks of {setting.backend} did not end in {wait_s:.0f} s"
                )
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()


def _named(row: Row) -> Row:
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {"gpu": gpu_name(), "node": "", "version": nccl, **row}
