"""What the replay loop costs per step and per request, beside the engine; prints JSON.

The simulated engine stands in for a real one: the time of the same steps in the compiled loop is
taken off.

    python benchmarks/replay_overhead.py [--requests N]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from blendplan import plan, replay, requests_from_lists, simulate
from blendplan.planfile.plan import Plan


def made(requests: int, output_tokens: int) -> Plan:
    """A plan of equal requests of random tokens."""
    rng = np.random.default_rng(0)
    prompts = list(rng.integers(3, 32000, (requests, 64)))
    known = np.full(requests, output_tokens)
    return plan(
        requests_from_lists(prompts, output_tokens=known), gpu="h100-80g", policy="dfs", effort=0
    )


def replay_s(job: Plan, output: Path | None) -> tuple[float, int]:
    """CPU seconds and steps of a replay on the simulated engine."""
    started = time.process_time()
    steps = replay(job, output=output).tally.steps
    return time.process_time() - started, steps


def simulated_s(job: Plan) -> float:
    """CPU seconds of the same steps in the compiled loop."""
    started = time.process_time()
    simulate(job)
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    requests = parser.parse_args().requests
    short, long = made(requests, 2), made(requests // 20, 400)
    with tempfile.TemporaryDirectory() as folder:
        replay_s(made(20, 2), Path(folder) / "warm.jsonl")
        simulated_s(made(20, 2))
        per_request = []
        for name, output in (("without results", None), ("with results", Path(folder) / "r")):
            seconds, _ = replay_s(short, output)
            per_request.append((name, (seconds - simulated_s(short)) / requests))
        seconds, steps = replay_s(long, None)
        per_step = (seconds - simulated_s(long)) / steps
    print(
        json.dumps(
            {
                "requests": requests,
                "per_request_us": {name: round(1e6 * value, 1) for name, value in per_request},
                "per_step_us": round(1e6 * per_step, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
