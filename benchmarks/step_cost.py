"""What a simulated step costs under calibrated and under datasheet prices.

    python benchmarks/step_cost.py [--rounds 9]

Prices the same million steps with both tables, in turn, and simulates the same job in input order,
whose steps do not depend on prices. Prints JSON: nanoseconds per step, the median over the rounds,
and the time it takes to make each table.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from blendplan.cost.machine import machine
from blendplan.cost.step import price_steps
from blendplan.planning.prepare import prepare
from blendplan.policy.make import make_policy
from blendplan.requests.in_memory import requests_from_lists
from blendplan.simulator.simulate import simulate_run

STEPS = 1_000_000
REQUESTS = 6_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    prefill = rng.integers(0, 1024, STEPS) * rng.integers(0, 2, STEPS)
    decode = rng.integers(1, 1024, STEPS)
    work: tuple[Any, ...] = (prefill, prefill * 900.0, decode, decode * 1500.0, decode)
    lengths = rng.integers(10, 600, (2, REQUESTS))
    prompts = [rng.integers(0, 9999, count).tolist() for count in lengths[0]]
    requests = requests_from_lists(prompts, output_tokens=lengths[1].tolist())

    price_ns: dict[str, list[float]] = {}
    run_ns: dict[str, list[float]] = {}
    table_ms: dict[str, list[float]] = {}
    for turn in range(arguments.rounds + 1):
        for cost in ("datasheet", "calibrated"):
            target, table_s = _timed(machine, "a100-80g", cost=cost)
            prepared = prepare(requests, target)
            policy = make_policy("fcfs", prepared.expected, target.limits)
            _, priced_s = _timed(price_steps, target.table, *work)
            run, run_s = _timed(
                simulate_run, prepared.workload, policy, target.limits, target.table
            )
            if turn:  # the first compiles
                price_ns.setdefault(cost, []).append(1e9 * priced_s / STEPS)
                run_ns.setdefault(cost, []).append(1e9 * run_s / run.steps)
                table_ms.setdefault(cost, []).append(1e3 * table_s)
    found = {
        name: {cost: round(statistics.median(values), 2) for cost, values in times.items()}
        for name, times in (
            ("price_ns_per_step", price_ns),
            ("simulated_ns_per_step", run_ns),
            ("table_ms", table_ms),
        )
    }
    extra = [a - b for a, b in zip(price_ns["calibrated"], price_ns["datasheet"], strict=True)]
    found["extra_ns_per_step"] = {
        "median": round(statistics.median(extra), 2),
        "least": round(min(extra), 2),
        "most": round(max(extra), 2),
    }
    print(json.dumps(found, indent=1))
    return 0


def _timed(call: Callable[..., Any], *words: Any, **named: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call(*words, **named)
    return result, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
