"""Workloads simulated under every policy, as rows for the results files."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from benchmarks.synthetic.workloads import Recipe, synthesize
from numpy.typing import NDArray

from blendplan.cost.machine import Machine, machine
from blendplan.lengths.predict import predict_lengths
from blendplan.lengths.predicted import OUTCOMES, Lengths
from blendplan.lengths.sample import choose_sample
from blendplan.planning.bound import makespan_bound
from blendplan.planning.compare import Comparison, compare
from blendplan.planning.prepare import prepare
from blendplan.planning.run_policy import run_policy
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.known import PolicyInput
from blendplan.policy.make import make_policy
from blendplan.policy.registry import POLICIES
from blendplan.requests.columns import Requests, without_lengths
from blendplan.simulator.simulate import simulate_run
from blendplan.tree.build import build_tree

Row = dict[str, Any]

# A mean without quantiles is taken to be this uncertain (standard deviation of the logarithm).
MEAN_SPREAD = 0.7


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

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `compare`."""
        return {
            "gpu": self.gpu,
            "model": self.model,
            "tp": self.tp,
            "overlap": self.overlap,
            "cost": self.cost,
        }


def workload(recipe: Recipe, data: Path, place: Place, requests: int, seed: int = 0) -> Requests:
    """A workload whose density refers to the place it runs at, by the paper's formula."""
    costs = replace(place, cost="datasheet").machine().costs
    return synthesize(recipe, data, requests=requests, seed=seed, costs=costs)


def run_policies(
    requests: Requests,
    place: Place,
    policies: Sequence[str] = tuple(POLICIES),
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
        requests, policies=policies, lengths=lengths, replicas=replicas, **place.options()
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


@dataclass(frozen=True)
class Variant:
    """`blend` with settings of its own, and a change to what it is told of the requests."""

    options: BlendOptions = field(default_factory=BlendOptions)
    change: Callable[[PolicyInput], PolicyInput] = lambda columns: columns


def unmetered(columns: PolicyInput) -> PolicyInput:
    """Steps take all the prefill that fits."""
    return replace(columns, prices=columns.prices._replace(least_tokens=1 << 20))


def certain(columns: PolicyInput) -> PolicyInput:
    """Predictions claim to be known lengths."""
    return replace(columns, outcomes=np.repeat(columns.output_tokens[:, None], OUTCOMES, axis=1))


def run_variants(
    requests: Requests, place: Place, variants: Mapping[str, Variant], knowledge: str
) -> Row:
    """``blend`` in several variants, by label; no settings are searched.

    Args:
        requests: with the lengths that come true.
        place: where they run.
        variants: by label.
        knowledge: what is known of the lengths; see `believed`.
    """
    target = place.machine()
    prepared = prepare(requests, target, lengths=believed(requests, knowledge))
    truth = replace(prepared.workload, output_tokens=requests.output_tokens)
    found = {}
    for label, variant in variants.items():
        expected = variant.change(prepared.expected)
        policy = make_policy("blend", expected, target.limits, parameters=asdict(variant.options))
        run = simulate_run(truth, policy, target.limits, target.table, layout=target.layout)
        bound = makespan_bound(
            target.table,
            prompt_tokens=truth.prompt_tokens,
            output_tokens=truth.output_tokens,
            prefill=prepared.prefill,
            kv_capacity_tokens=target.limits.kv_tokens,
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


def run_believed(requests: Requests, place: Place, knowledge: str) -> Row:
    """``blend`` with the settings that it finds, when that much is known of the lengths."""
    target = place.machine()
    prepared = prepare(requests, target, lengths=believed(requests, knowledge))
    truth = replace(prepared.workload, output_tokens=requests.output_tokens)
    prediction = run_policy(replace(prepared, workload=truth), target, "blend")
    run = prediction.run
    return {
        "blend": 100 * prediction.bound.makespan_s / run.makespan_s,
        "preemptions": run.preemptions,
        "sharing": run.prefix_sharing / prepared.sharing,
        "tail_s": run.tail_s,
        "makespan_s": run.makespan_s,
        "options": dict(prediction.parameters),
    }


def believed(requests: Requests, knowledge: str) -> Lengths:
    """Output lengths as a planner with that knowledge believes them to be.

    Args:
        requests: with the lengths that come true.
        knowledge: ``known``; ``sample``, 1 % of the requests; ``family mean``, of the requests of
            one source, whose prompts begin alike; ``noise S``, off by log-normal noise.
    """
    truth = requests.output_tokens.astype(np.float64)
    if knowledge == "known":
        return predict_lengths(requests, build_tree(requests))
    if knowledge == "sample":
        with scratch_folder() as folder:
            method = sampled(requests, 0.01, Path(folder))
            hidden = without_lengths(requests)
            return predict_lengths(hidden, build_tree(hidden), method)
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
    return Lengths.log_normal(mean, p50, p90).within(1.0, np.inf)


def sampled(requests: Requests, fraction: float, folder: Path, seed: int = 0) -> str:
    """What ``lengths`` must say to see no more than a sample of the true lengths."""
    hidden = without_lengths(requests)
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
