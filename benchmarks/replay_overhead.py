"""What the replay loop costs per step and per request, beside the engine; prints JSON.

The simulated engine stands in for a real one: its own time is measured alone and taken off.

    python benchmarks/replay_overhead.py [--requests N]
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from blendplan import plan, replay, requests_from_lists
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import EngineRequest
from blendplan.engines.simulated_kind import simulated_engine
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


def engine_s(job: Plan) -> float:
    """CPU seconds of the simulated engine alone: everything submitted at once."""
    engine = simulated_engine(job)
    started = time.process_time()
    report = engine.step([EngineRequest(row) for row in range(len(job))])
    while report.running or report.waiting:
        report = engine.step([])
    return time.process_time() - started


def round_trip_s(job: Plan, steps: int = 500) -> float:
    """Wall seconds that the median step takes longer in a process of its own."""
    times = {}
    for name, start in (
        ("here", partial(simulated_engine, job)),
        ("there", lambda: EngineProcess(partial(simulated_engine, job))),
    ):
        engine = start()
        taken = []
        for _ in range(steps):
            started = time.perf_counter()
            engine.step([])
            taken.append(time.perf_counter() - started)
        times[name] = median(taken)
        engine.close()
    return times["there"] - times["here"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    requests = parser.parse_args().requests
    short, long = made(requests, 2), made(requests // 20, 400)
    with tempfile.TemporaryDirectory() as folder:
        replay_s(made(20, 2), Path(folder) / "warm.jsonl")
        per_request = []
        for name, output in (("without results", None), ("with results", Path(folder) / "r")):
            seconds, _ = replay_s(short, output)
            per_request.append((name, (seconds - engine_s(short)) / requests))
        seconds, steps = replay_s(long, None)
        per_step = (seconds - engine_s(long)) / steps
        crossing = round_trip_s(long)
    print(
        json.dumps(
            {
                "requests": requests,
                "per_request_us": {name: round(1e6 * value, 1) for name, value in per_request},
                "per_step_us": round(1e6 * per_step, 1),
                "per_step_us_of_a_process_of_its_own": round(1e6 * crossing, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
