"""Speed-up of simulated replicas that share a plan, on the simulated clock.

    python benchmarks/cluster_speedup.py [--requests 32000] [--replicas 1,2,4,8,32] [--sigma 1]

Output lengths are planned as known and turn out to be off by a log-normal factor, up to a longest
one. The same job runs on each number of replicas: the ends of the longest requests take
as long on any of them, so it must be large. Prints JSON, one object for each number.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.replaying.several import replay_several

import blendplan
from blendplan.planfile.plan import Plan

ENGINE: dict[str, Any] = {
    "kv_tokens": 60_000,
    "max_num_seqs": 128,
    "max_num_batched_tokens": 1024,
    "effort": 0,
}
LONGEST = 400


def prompts(count: int, rng: np.random.Generator) -> tuple[list[list[int]], np.ndarray]:
    """Requests of three kinds, with families, and their planned output lengths."""
    beginnings = [rng.integers(3, 4000, rng.integers(50, 400)).tolist() for _ in range(40)]
    asked, lengths = [], np.empty(count)
    for row in range(count):
        if row % 3 == 0:
            tail = rng.integers(3, 4000, rng.integers(5, 60)).tolist()
            asked.append(beginnings[rng.integers(40)] + tail)
            lengths[row] = rng.lognormal(np.log(16), 0.7)
        else:
            low, high = (10, 60) if row % 3 == 1 else (200, 600)
            asked.append(rng.integers(3, 4000, rng.integers(low, high)).tolist())
            lengths[row] = rng.lognormal(np.log(80 if row % 3 == 1 else 40), 0.6)
    return asked, np.maximum(1, lengths).astype(np.int64)


def off_by(made: Plan, lengths: np.ndarray, sigma: float, rng: np.random.Generator) -> Plan:
    """The same plan of requests whose outputs are longer or shorter than planned."""
    actual = np.clip(lengths * rng.lognormal(0.0, sigma, len(lengths)), 1, LONGEST)
    known = actual.astype(np.int32)[made.column("source_row")]
    place = made.table.column_names.index("output_tokens_known")
    return replace(made, table=made.table.set_column(place, "output_tokens_known", pa.array(known)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=32_000, help="of the whole job")
    parser.add_argument("--replicas", default="1,2,4,8,32")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    numbers, lengths = prompts(asked.requests, np.random.default_rng(asked.seed))
    requests = blendplan.requests_from_lists(numbers, output_tokens=lengths.tolist())
    made = blendplan.plan(requests, gpu="a100-80g", **ENGINE)
    made = off_by(made, lengths, asked.sigma, np.random.default_rng(asked.seed + 1))
    one_s = 0.0
    for replicas in map(int, asked.replicas.split(",")):
        begun = time.process_time()
        done = replay_several(made, replicas)
        cpu_s = time.process_time() - begun
        makespan_s = done.tally.elapsed_s
        one_s = one_s or makespan_s * replicas
        kept_s = [one["kept_waiting_s"] for one in done.replicas]
        print(
            json.dumps(
                {
                    "replicas": replicas,
                    "requests": done.tally.finished,
                    "makespan_s": makespan_s,
                    "speed_up": one_s / makespan_s,
                    "efficiency": one_s / makespan_s / replicas,
                    "moved": sum(one["moved_in"] for one in done.replicas),
                    "idle_share": max((one["idle_s"] for one in done.replicas), default=0.0)
                    / makespan_s,
                    "idle_while_others_wait_share": max(kept_s, default=0.0) / makespan_s,
                    "cpu_s_with_the_simulation": cpu_s,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
