"""Planning larger than memory: time, memory and disk, and what the plan is worth beside one piece.

    python benchmarks/large_plan.py -n 1000000 --replicas 32 --processes 2 --one-piece

Writes made-up requests (`million.py`) as Parquet files into a temporary folder, plans them into a
folder in a process of its own, and samples the memory of that process and all that it starts, the
sum of their resident sets, and the size of the folder. With ``--one-piece`` the same requests are
also planned as one file. Prints one JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import million

GPU = "h100-80g"
_SAMPLE_S = 0.25


def write_files(folder: Path, requests: int, prompt_tokens: int, files: int, seed: int) -> None:
    """Write requests as so many Parquet files."""
    generator = np.random.default_rng(seed)
    prefixes = million.Prefixes(prompt_tokens, generator)
    cuts = np.linspace(0, requests, files + 1).astype(int).tolist()
    for number, (start, end) in enumerate(pairwise(cuts)):
        path = folder / f"requests-{number:05d}.parquet"
        with pq.ParquetWriter(path, million.SCHEMA, compression="zstd") as writer:
            for first in range(start, end, million.ROWS_AT_ONCE):
                rows = min(million.ROWS_AT_ONCE, end - first)
                writer.write_table(
                    million.row_group(first, rows, prompt_tokens, prefixes, generator)
                )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder and below; files that go meanwhile count for nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def tree_of(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree_of(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return


def resident_bytes(process: int) -> int:
    """Sum of the resident sets of a process and all that it has started."""
    pages = 0
    for one in tree_of(process):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def measured(work: str, arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a function of this file in a process of its own; what it prints, and what it took."""
    command = [sys.executable, __file__, "--run", work, json.dumps(arguments)]
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = {"memory": 0, "disk": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_S):
            peak["memory"] = max(peak["memory"], resident_bytes(process.pid))
            if folder.exists():
                peak["disk"] = max(peak["disk"], size_of(folder))

    watching = threading.Thread(target=watch)
    watching.start()
    output, _ = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended.set()
    watching.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_memory_bytes": peak["memory"],
        "peak_disk_bytes": peak["disk"],
        **json.loads(output),
    }


def plan_folder(files: str, output: str, replicas: int, processes: int, effort: int) -> None:
    """Plan into a folder, and print the stages and what the plan comes to."""
    from blendplan.planning.large.planner import plan_files

    stages: dict[str, float] = {}
    started = last = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - last
        last = now
        if done == total:
            print(f"{now - started:8.1f} s {stage} {done}", file=sys.stderr, flush=True)

    made = plan_files(
        files, output, gpu=GPU, replicas=replicas, processes=processes, effort=effort,
        progress=progress,
    )  # fmt: skip
    stages["writing the manifest"] = time.perf_counter() - last
    times = {name: round(seconds, 1) for name, seconds in stages.items()}
    print(json.dumps({"stages_s": times, **summary(made.metadata)}))


def plan_file(files: str, replicas: int, effort: int) -> None:
    """Plan as one piece in memory, and print what the plan comes to."""
    import blendplan

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.arrow"
        _join(Path(files), path)
        requests = blendplan.read_requests(path)
    made = blendplan.plan(requests, gpu=GPU, replicas=replicas, effort=effort)
    print(json.dumps(summary(made.metadata)))


def _join(folder: Path, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, million.SCHEMA) as writer:
        for file in sorted(folder.glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(1 << 15):
                writer.write_batch(batch)


def summary(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is compared."""
    parts = [part["predicted"]["makespan_s"] for part in metadata.get("parts", [metadata])]
    return {
        "parts": len(parts),
        "sharing": metadata["prefix_sharing"]["planned"],
        "optimal_sharing": metadata["prefix_sharing"]["optimal"],
        "density": metadata["density"],
        "makespan_s": max(parts),
        "sum_of_makespans_s": sum(parts),
        "bound_s": metadata["bound_s"],
        "bound_ratio": metadata["bound_ratio"],
    }


def main() -> None:
    """Make, plan, compare, print."""
    if sys.argv[1:2] == ["--run"]:
        works: dict[str, Callable[..., None]] = {"plan_folder": plan_folder, "plan_file": plan_file}
        works[sys.argv[2]](**json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description="Measure planning larger than memory.")
    parser.add_argument("-n", "--requests", type=int, default=1_000_000)
    parser.add_argument("--prompt-tokens", type=int, default=200, help="mean length of a prompt")
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--effort", type=int, default=1)
    parser.add_argument("--one-piece", action="store_true", help="also plan as one file")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    parser.add_argument(
        "--input", type=Path, help="folder of the request files, which are kept, and used again"
    )
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        files, output = words.input or Path(folder) / "requests", Path(folder) / "plan"
        if not files.exists():
            making = Path(folder) / "making"
            making.mkdir()
            write_files(making, words.requests, words.prompt_tokens, words.files, words.seed)
            making.rename(files)
        shared = {"files": str(files), "replicas": words.replicas, "effort": words.effort}
        result: dict[str, Any] = {
            "requests": words.requests,
            "prompt_tokens": words.prompt_tokens,
            "processes": words.processes,
            "input_bytes": size_of(files),
            "folder": measured(
                "plan_folder",
                {**shared, "output": str(output), "processes": words.processes},
                output,
            ),
            "plan_bytes": size_of(output),
        }
        if words.one_piece:
            result["one_piece"] = one = measured("plan_file", shared, output)
            result["folder_over_one_piece"] = {
                name: result["folder"][name] / one[name]
                for name in ("sharing", "makespan_s", "sum_of_makespans_s")
            }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
