"""Workloads simulated under every policy, as rows for the results files."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from blendplan.comparison import Comparison, compare
from blendplan.cost import makespan_bound
from blendplan.lengths import choose_sample
from blendplan.machine import Machine, machine
from blendplan.prediction import run_policy
from blendplan.preparation import prepare
from blendplan.requests import Requests
from blendplan.schedule import BlendOptions, make_policy
from blendplan.schedule.policies import POLICIES
from blendplan.simulator import simulate_run
from blendplan.synthetic import Recipe, synthesize
from blendplan.tree import build_tree

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a workload runs.

    Attributes:
        gpu, model, tp: names and tensor-parallel degree.
        overlap: overlap exponent of the engine.
        cost: cost model.
    """

    gpu: str = "a100-80g"
    model: str = "llama-3.1-8b"
    tp: int = 1
    overlap: float = 2.0
    cost: str = "datasheet"

    def machine(self) -> Machine:
        """The machine of that description."""
        return machine(self.gpu, self.model, tp=self.tp, overlap=self.overlap, cost=self.cost)

    def wish(self) -> dict[str, Any]:
        """Keyword arguments of `compare`."""
        return {
            "gpu": self.gpu,
            "model": self.model,
            "tp": self.tp,
            "overlap": self.overlap,
            "cost": self.cost,
        }


def workload(wish: Recipe, data: Path, place: Place, requests: int, seed: int = 0) -> Requests:
    """A workload whose density refers to the place it runs at, by the paper's formula."""
    costs = replace(place, cost="datasheet").machine().costs
    return synthesize(wish, data, requests=requests, seed=seed, costs=costs)


def run_policies(
    requests: Requests,
    place: Place,
    policies: Sequence[str] = POLICIES,
    *,
    lengths: str = "auto",
    replicas: int = 1,
    dfs_orders: bool = True,
) -> Row:
    """Every policy on the same requests.

    Depth-first order depends on the order of the children, which is that of token ids, so here a
    matter of chance: with `dfs_orders`, ``dfs`` is also run for every order of the sources.
    """
    result = compare(
        requests, policies=policies, lengths=lengths, replicas=replicas, **place.wish()
    )
    row: Row = {
        "requests": len(requests),
        "density": result.prepared.expected.root_density,
        "optimal_sharing": result.prepared.sharing,
        "policies": {},
    }
    for name, outcome in result.outcomes.items():
        run = outcome.run
        row["policies"][name] = {
            "makespan_s": run.makespan_s,
            "throughput_tokens_per_s": run.throughput_tokens_per_s,
            "bound_ratio": outcome.bound.makespan_s / run.makespan_s,
            "prefix_sharing": run.prefix_sharing,
            "steps": run.steps,
            "preemptions": run.preemptions,
            "plan_wall_s": outcome.plan_wall_s,
        }
    if dfs_orders and "dfs" in policies:
        makespan_s = _dfs_makespans(result)
        bound_s = result.outcomes["dfs"].bound.makespan_s
        row["dfs_orders"] = {
            "mean_makespan_s": fmean(makespan_s),
            "bound_ratios": sorted(bound_s / one for one in makespan_s),
        }
    return row


def run_options(requests: Requests, place: Place, options: Mapping[str, BlendOptions]) -> Row:
    """``blend`` with given settings, by label; no settings are searched."""
    target = place.machine()
    prepared = prepare(requests, target)
    found = {}
    for label, chosen in options.items():
        policy = make_policy("blend", prepared.expected, target.settings, options=chosen)
        run = simulate_run(prepared.workload, policy, target.settings, target.table)
        bound = makespan_bound(
            target.table,
            prompt_tokens=prepared.workload.prompt_tokens,
            output_tokens=prepared.workload.output_tokens,
            prefill=prepared.prefill,
            kv_capacity_tokens=target.settings.kv_tokens,
            preemptions=run.preemptions,
        )
        found[label] = {
            "makespan_s": run.makespan_s,
            "bound_ratio": bound.makespan_s / run.makespan_s,
            "preemptions": run.preemptions,
        }
    return found


def _dfs_makespans(result: Comparison) -> list[float]:
    """Makespan of depth-first order for every order of the sources, the root's children."""
    prepared, tree = result.prepared, result.prepared.tree
    sources = np.flatnonzero(tree.parent == 0)
    found = []
    for order in itertools.permutations(sources):
        parts = [tree.order[tree.request_start[v] : tree.request_end[v]] for v in order]
        expected = replace(prepared.expected, depth_first=np.concatenate(parts))
        prediction = run_policy(replace(prepared, expected=expected), result.target, "dfs")
        found.append(prediction.run.makespan_s)
    return found


def gain(row: Row, policy: str, baseline: str = "dfs") -> float:
    """Throughput of a policy over a baseline's, less 1; over all orders of ``dfs`` where known."""
    base = row["policies"][baseline]["makespan_s"]
    if baseline == "dfs" and "dfs_orders" in row:
        base = row["dfs_orders"]["mean_makespan_s"]
    return float(base / row["policies"][policy]["makespan_s"] - 1.0)


def sampled(requests: Requests, fraction: float, folder: Path, seed: int = 0) -> str:
    """What ``lengths`` must say to see no more than a sample of the true lengths."""
    hidden = replace(requests, output_tokens=np.full(len(requests), -1, np.int32))
    rows = choose_sample(build_tree(hidden), hidden, fraction, seed)
    path = folder / "sample.jsonl"
    ids = requests.ids.take(rows).to_pylist()
    with path.open("w", encoding="utf-8") as lines:
        for name, length in zip(ids, requests.output_tokens[rows].tolist(), strict=True):
            lines.write(json.dumps({"id": name, "output_tokens": length}) + "\n")
    return f"sample:{path}"


def scratch_folder() -> "TemporaryDirectory[str]":
    """A folder that is gone afterwards."""
    return TemporaryDirectory(prefix="blendplan-")
