"""What the driver of a run on many replicas costs, without engines.

    python benchmarks/cluster_driver.py [--requests 1000000] [--replicas 32]

The engines answer at once whatever they are sent, in this process, and have the policy of the plan
beside them as a plain window: what is left is the loop, the balance and the writing of results.
Prints JSON.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.replaying.several import replay_several

import blendplan
from blendplan.engines.protocol import Answer, Capacity, EngineRequest, Move, Report, Session
from blendplan.engines.window import Window
from blendplan.planfile.plan import Plan

BODY = json.dumps(
    {
        "choices": [{"index": 0, "text": "x" * 400, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 100},
    }
).encode()


class Instant:
    """Answers what it is sent, some dozens in a turn, at a pace of its own."""

    def __init__(self, made: Plan, replica: int, session: Session) -> None:
        self.capacity = Capacity(made.limits, made.limits.kv_tokens, [], "instant 1")
        self._window = Window(session, 64)
        self._clock_s = session.clock_s
        self._pace_s = 0.001 * (1.0 + 0.2 * (replica % 5))

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        """Answer all of them."""
        rows = [one.row for one in requests]
        self._window.done(rows)
        self._clock_s += self._pace_s * len(rows)
        answers = [Answer(row, 200, BODY) for row in rows]
        return Report(answers, self._window.next(), began=rows, clock_s=self._clock_s)

    def pass_over(self, rows: Sequence[int]) -> None:
        """They will not come."""
        self._window.done(rows)

    def move(self, move: Move) -> None:
        """Others come, or go."""
        self._clock_s = max(self._clock_s, move.clock_s)
        self._window.move(move)

    def stop(self) -> None:
        """Send nothing more."""
        self._window.stop()

    def close(self) -> None:
        """Nothing to free."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--replicas", type=int, default=32)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 30_000, (asked.requests, 8))
    tokens[:, :3] = (np.arange(asked.requests) // 50)[:, None]
    requests = blendplan.requests_from_lists(
        list(tokens), output_tokens=rng.integers(20, 200, asked.requests)
    )
    made = blendplan.plan(requests, gpu="a100-80g", policy="dfs", effort=0)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.monotonic(), time.process_time()
        done = replay_several(
            made,
            asked.replicas,
            Path(folder) / "results.jsonl",
            start=lambda replica, session: Instant(made, replica, session),
            order="finish",
        )
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    report = {
        "requests": done.tally.finished,
        "replicas": asked.replicas,
        "moved": sum(one["moved_in"] for one in done.replicas),
        "wall_s": wall,
        "cpu_s": cpu,
        "cpu_us_per_request": 1e6 * cpu / done.tally.finished,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "clocks_apart_share": max(one["idle_s"] for one in done.replicas) / done.tally.elapsed_s,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
