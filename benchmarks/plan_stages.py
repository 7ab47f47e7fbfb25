"""Where the time of planning goes, stage by stage, and how it grows.

    python benchmarks/plan_stages.py [--requests 10000,100000,1000000] [--policy blendserve]

Request files of about 500 prompt tokens each are made in a temporary folder (see million.py), then
read, planned and written. Prints one JSON object: seconds of wall clock and of CPU per stage and
size, the exponent with which each stage grows from the smallest to the largest size, and the peak
memory of the process. CPU seconds can be trusted on a machine that does other work as well.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import million
from blendplan.cost.machine import machine
from blendplan.lengths.predict import predict_lengths
from blendplan.planfile.assemble import assemble_plan
from blendplan.planning.bound import least_prefill
from blendplan.planning.describe import describe
from blendplan.planning.prepare import prepare
from blendplan.planning.run_policy import run_policy
from blendplan.requests.read import read_requests
from blendplan.tree.annotate import annotate
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.splitting.split import split_tree

T = TypeVar("T")


class Clock:
    """Wall-clock and CPU seconds by name."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall_s[name] = round(time.perf_counter() - wall, 4)
        self.cpu_s[name] = round(time.process_time() - cpu, 4)
        return result


def stages(path: Path, output: Path, policy: str) -> Clock:
    """Plan one file; the stages of `prepare` also one by one."""
    clock = Clock()
    target = machine("a100-80g", cost="datasheet")
    requests = clock.time("read", lambda: read_requests(path))
    prompts = requests.prompt_tokens
    tree = clock.time("tree", lambda: build_tree(requests))
    lengths = clock.time("lengths", lambda: predict_lengths(requests, tree))
    compute_s, memory_s = target.costs.demand(prompts, lengths.mean)
    outputs = lengths.mean.astype(float)
    clock.time(
        "annotate", lambda: annotate(tree, prompts, compute_s, memory_s, output_tokens=outputs)
    )
    clock.time(
        "sort and split",
        lambda: split_tree(tree, prompts, compute_s, memory_s, output_tokens=outputs),
    )
    clock.time("shared blocks", lambda: block_chains(tree, requests, 16))
    clock.time("least prefill", lambda: least_prefill(tree))
    prepared = clock.time("all of prepare", lambda: prepare(requests, target))
    prediction = clock.time("simulate", lambda: run_policy(prepared, target, policy))
    plan = clock.time(
        "assemble",
        lambda: assemble_plan(
            requests,
            prepared.sequences,
            prediction.run,
            lengths=prepared.lengths,
            expected=prepared.expected,
            limits=target.limits,
            metadata=describe(prepared, target, policy, prediction),
        ),
    )
    clock.time("write", lambda: plan.write(output))
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", default="10000,100000,1000000")
    parser.add_argument("--policy", default="blendserve")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.requests.split(",")]
    result: dict[str, Any] = {"policy": arguments.policy, "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm.parquet"
        million.write(warm, 2_000)
        stages(warm, Path(folder) / "plan.arrow", arguments.policy)
        for size in sizes:
            path = Path(folder) / f"{size}.parquet"
            million.write(path, size)
            clock = stages(path, Path(folder) / "plan.arrow", arguments.policy)
            path.unlink()
            result["sizes"][size] = {"wall_s": clock.wall_s, "cpu_s": clock.cpu_s}
    if len(sizes) > 1:
        first, last = (result["sizes"][size]["cpu_s"] for size in (sizes[0], sizes[-1]))
        growth = math.log(sizes[-1] / sizes[0])
        result["growth_exponent"] = {
            name: round(math.log(max(last[name], 1e-4) / max(first[name], 1e-4)) / growth, 2)
            for name in last
        }
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["peak_memory_gib"] = round(peak_kib / 2**20, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
