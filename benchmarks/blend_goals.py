"""How near `blend` comes to the lower bound, by what it knows of output lengths.

    python benchmarks/blend_goals.py --data DIR [--requests 400000] [--traces trace1,trace2]

The paper's four workloads (Table 2), Llama-3.1-8B on one A100-80G, datasheet prices. Known lengths;
a 1 % sample; the mean of each family (the requests of one source) alone; and predictions that are
off by log-normal noise of a stated sigma. Prints one JSON object with the share of the bound per
workload, knowledge and overlap exponent, that of the plain orders beside it, and preemptions.
``DIR`` holds the traces; ``BLENDPLAN_DATA`` names it when ``--data`` is not given.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.lengths import Lengths, choose_sample, predict_lengths
from blendplan.machine import machine
from blendplan.prediction import run_policy
from blendplan.preparation import prepare
from blendplan.requests import Requests
from blendplan.synthetic import PAPER_TRACES, paper_trace
from blendplan.tree import PrefixTree, build_tree

KNOWLEDGE = ("known", "sample", "family mean", "noise 0.5", "noise 1")
OVERLAPS = (2.0, 1.0, np.inf)
# A mean without quantiles is taken to be this uncertain (standard deviation of the logarithm).
MEAN_SPREAD = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BLENDPLAN_DATA"))
    parser.add_argument("--requests", type=int, default=400_000)
    parser.add_argument("--traces", default=",".join(PAPER_TRACES))
    parser.add_argument("--knowledge", default=",".join(KNOWLEDGE))
    parser.add_argument("--effort", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data DIR, the folder with the traces, or set BLENDPLAN_DATA")
    rows = []
    for name in arguments.traces.split(","):
        requests = paper_trace(name, arguments.data, requests=arguments.requests)
        for knowledge in arguments.knowledge.split(","):
            for row in measure(requests, name, knowledge, arguments.effort):
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
    print(json.dumps({"requests": arguments.requests, "rows": rows}))


def measure(requests: Requests, name: str, knowledge: str, effort: int) -> list[dict[str, Any]]:
    """One row per overlap exponent."""
    target = machine("a100-80g", cost="datasheet")
    lengths = believed(requests, build_tree(requests), knowledge)
    prepared = prepare(requests, target, lengths=lengths)
    truth = replace(prepared.workload, output_tokens=requests.output_tokens)
    prepared = replace(prepared, workload=truth)
    rows = []
    for overlap in OVERLAPS if knowledge in ("known", "sample") else OVERLAPS[:2]:
        target = machine("a100-80g", overlap=overlap, cost="datasheet")
        row: dict[str, Any] = {
            "workload": name, "knowledge": knowledge, "overlap": str(overlap)
        }  # fmt: skip
        policies = ("blend", "blendserve", "dfs", "random") if knowledge == "known" else ("blend",)
        for policy in policies:
            prediction = run_policy(prepared, target, policy, effort=effort)
            run = prediction.run
            row[policy] = round(100 * prediction.bound.makespan_s / run.makespan_s, 2)
            if policy == "blend":
                row |= {
                    "preemptions": run.preemptions,
                    "sharing": round(run.prefix_sharing / prepared.sharing, 4),
                    "tail_s": round(run.tail_s, 1),
                    "makespan_s": round(run.makespan_s, 1),
                    "options": dict(prediction.parameters),
                }
        rows.append(row)
    return rows


def believed(requests: Requests, tree: PrefixTree, knowledge: str) -> Lengths:
    """Output lengths as a planner with that knowledge believes them to be."""
    truth = requests.output_tokens.astype(np.float64)
    if knowledge == "known":
        return predict_lengths(requests, tree)
    if knowledge == "sample":
        return sampled(requests, tree)
    if knowledge == "family mean":
        family = np.unique(requests.token_ids[requests.offsets[:-1]], return_inverse=True)[1]
        mean = (np.bincount(family, truth) / np.bincount(family))[family]
        return log_normal(mean, MEAN_SPREAD)
    sigma = float(knowledge.removeprefix("noise "))
    noise = np.random.default_rng(0).normal(0.0, sigma, len(truth))
    return log_normal(np.clip(truth * np.exp(noise), 1.0, 131_072.0), sigma)


def log_normal(mean: NDArray[np.float64], spread: float) -> Lengths:
    """Log-normal beliefs with that mean."""
    p50 = mean * np.exp(-(spread**2) / 2)
    p90 = p50 * np.exp(1.2815515655446004 * spread)
    return Lengths(
        np.maximum(1.0, mean).astype(np.float32),
        np.maximum(1.0, p50).astype(np.float32),
        np.maximum(1.0, p90).astype(np.float32),
        np.zeros(len(mean), dtype=np.int8),
    )


def sampled(requests: Requests, tree: PrefixTree) -> Lengths:
    """Lengths predicted from a 1 % sample that has been run."""
    unknown = replace(requests, output_tokens=np.full(len(requests), -1, dtype=np.int32))
    rows = choose_sample(tree, unknown, 0.01)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.jsonl"
        ids = requests.ids.take(rows).to_pylist()
        with path.open("w", encoding="utf-8") as file:
            for name, row in zip(ids, rows.tolist(), strict=True):
                length = int(requests.output_tokens[row])
                file.write(json.dumps({"id": name, "output_tokens": length}) + "\n")
        return predict_lengths(unknown, tree, f"sample:{path}")


if __name__ == "__main__":
    main()
