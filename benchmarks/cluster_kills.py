"""Random kills of the actors of runs on a real Ray cluster: what is lost, and what comes twice.

    python benchmarks/cluster_kills.py [--kills 100] [--nodes 4] [--seed 0]

Runs jobs of different sizes one after the other until so many actors were killed, one or several at
a time, after every few requests or in the midst of a start. Every run must end with one answer for
each request. Prints JSON.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.replaying.cluster.machines import SLOW_ROW, Machines, kill, machines
from tests.replaying.replay_jobs import assert_each_once, small_plan, write_requests_file

from blendplan.engines.registry import ENGINES
from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally


class Killer:
    """Kills actors as a run goes on.

    Args:
        cluster: whose actors.
        rng: says which, how many and when.
    """

    def __init__(self, cluster: Machines, rng: np.random.Generator) -> None:
        self.kills = 0
        self._cluster = cluster
        self._rng = rng
        self._next = 0

    def begin(self) -> None:
        """A run begins."""
        self._next = int(self._rng.integers(0, 10))

    def strike(self, tally: Tally) -> None:
        """Kill some, if so many requests have finished."""
        if tally.finished < self._next:
            return
        self._next = tally.finished + int(self._rng.integers(1, 20))
        self._kill(int(self._rng.integers(1, 4)))
        if self._rng.random() < 0.3:
            # What is asked for now dies while it starts.
            threading.Timer(self._rng.uniform(0.5, 3.0), self._kill, [1]).start()

    def _kill(self, most: int) -> None:
        self.kills += kill(self._rng.permutation(self._cluster.actors())[:most].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    ENGINES._rows.update(SLOW_ROW)
    begun = time.monotonic()
    runs = requests = again = 0
    with machines(asked.nodes) as cluster, tempfile.TemporaryDirectory() as folder:
        killer = Killer(cluster, rng)
        while killer.kills < asked.kills:
            runs += 1
            job = write_requests_file(
                Path(folder) / f"{runs}.jsonl", int(rng.integers(60, 400)), seed=runs, answers=2
            )
            made = small_plan(job, policy="blend", replicas=int(rng.integers(1, 5)), effort=0)
            output = Path(folder) / f"{runs}.results.jsonl"
            killer.begin()
            done = replay(
                made,
                "slow",
                output,
                ray=Cluster(cluster.address, replicas_max=asked.nodes, patience_s=2.0),
                retries=1000,
                progress=killer.strike,
            )
            assert_each_once(made, output)
            assert done.tally.finished == made.metadata["requests"], "a request has an error line"
            requests += done.tally.finished
            again += done.tally.restarts
            print(f"{killer.kills} kills, {runs} runs", file=sys.stderr, flush=True)
    report = {
        "kills": killer.kills,
        "runs": runs,
        "requests": requests,
        "engines_started_again": again,
        "lost": 0,
        "twice": 0,
        "wall_s": time.monotonic() - begun,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
