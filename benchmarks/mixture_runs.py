"""One mixture under policies, by what is known of the output lengths; rows for a results file."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from benchmarks.mixture_recipes import Recipe, recipe
from benchmarks.mixture_sets import Mixture, mixture
from benchmarks.paper_runs import log_normal
from numpy.typing import NDArray

from blendplan.cost.machine import machine
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.protocol import longest_outputs
from blendplan.lengths.sample import choose_sample
from blendplan.planning.compare import compare
from blendplan.planning.prepare import Prepared, prepare
from blendplan.planning.run_policy import Prediction, run_policy
from blendplan.proving.sampled import write_lengths
from blendplan.requests.columns import Requests, without_lengths
from blendplan.requests.write import write_requests
from blendplan.simulator.simulate import SimulatedRun
from blendplan.tree.build import build_tree

Row = dict[str, Any]

PLAIN = ("fcfs", "random", "dfs")
"""Policies to which output lengths are nothing."""

POLICY_NAMES = (*PLAIN, "blendserve", "blend")
FIXED = "-fixed"
"""After a knowledge: the plan stays as it is while it runs."""

_UNSURE = ("sample", "prior", "history", "noise")
KNOWLEDGE = ("known", *_UNSURE, "misstated", *(f"{name}{FIXED}" for name in _UNSURE))
LEAST_SAMPLE = 200
SAMPLE_SHARE = 0.01
SIGMA = 1.0  # of the noise, in logarithms
SEEDED = ("sample", "noise", "misstated", "sample-fixed", "noise-fixed")
"""Knowledge in which there is chance."""

ANY = "any"


def run_mixture(
    number: int,
    data: Path,
    *,
    overlap: float,
    knowledge: str,
    policies: Sequence[str],
    thin: int = 1,
    effort: int = 1,
    seed: int = 0,
) -> Iterator[Row]:
    """Simulate a mixture under policies that have that knowledge.

    Args:
        number: of the mixture.
        data: folder with the traces.
        overlap: overlap exponent of the engine.
        knowledge: ``known``; ``sample``, the true lengths of 1 % of the requests, but at least 200;
            ``prior``; ``history``, the results of an earlier job of the same sources; ``noise``,
            predictions off by log-normal noise that know how wrong they may be; ``misstated``,
            the same lengths taken for true; ``any`` for policies that do not look. With ``-fixed``
            after it, nothing is learned during the run.
        policies: their names.
        thin: take so many times fewer requests.
        effort: of the planner.
        seed: of the sample and of the noise.
    """
    mixed = _mixture(number, Path(data), thin)
    labels: Row = {"mixture": number, "half": mixed.recipe.half, "label": mixed.label}
    labels |= {"overlap": overlap, "thin": thin, "effort": effort, "seed": seed}
    labels |= {"requests": len(mixed.requests), "knowledge": knowledge}
    capacity = machine(**mixed.recipe.engine).limits.kv_tokens
    for name, prepared, outcome, rest, wall_s in _outcomes(
        mixed, Path(data), overlap, knowledge, policies, effort, seed
    ):
        row = labels | {"policy": name} | _measures(prepared, outcome, capacity)
        if knowledge != ANY:
            row |= {"lengths": quality(prepared.lengths, mixed.requests, rest)}
        row["wall_s"] = wall_s
        yield row


def _outcomes(
    mixed: Mixture,
    data: Path,
    overlap: float,
    knowledge: str,
    policies: Sequence[str],
    effort: int,
    seed: int,
) -> Iterator[tuple[str, Prepared, Prediction, NDArray[np.bool_], float]]:
    """Of each policy: name, stages before it, outcome, requests that were predicted, seconds."""
    requests, engine = mixed.requests, mixed.recipe.engine | {"overlap": overlap}
    replan = not knowledge.endswith(FIXED)
    knowledge = knowledge.removesuffix(FIXED)
    rest = np.ones(len(requests), np.bool_)
    if knowledge in ("noise", "misstated"):
        target = machine(**engine)
        hidden = without_lengths(requests)
        prepared = prepare(hidden, target, lengths=noisy(requests, knowledge, seed))
        truth = replace(prepared.workload, output_tokens=requests.output_tokens)
        prepared = replace(prepared, requests=requests, workload=truth)
        for name in policies:
            started = time.perf_counter()
            outcome = run_policy(prepared, target, name, effort=effort, replan=replan)
            yield name, prepared, outcome, rest, time.perf_counter() - started
        return
    with TemporaryDirectory(prefix="blendplan-") as folder:
        lengths = "known" if knowledge == ANY else knowledge
        if knowledge == "sample":
            lengths, rows = sample(requests, Path(folder), seed)
            rest[rows] = False
        elif knowledge == "history":
            lengths = history(mixed.recipe, data, Path(folder))
        result = compare(
            requests, policies=policies, lengths=lengths, effort=effort, replan=replan, **engine
        )
    for name, one in result.outcomes.items():
        yield name, result.prepared, one.prediction, rest, one.plan_wall_s


def sample(requests: Requests, folder: Path, seed: int = 0) -> tuple[str, NDArray[np.int64]]:
    """What ``lengths`` must say to see a sample of the true lengths; and which; int64 [k]."""
    hidden = without_lengths(requests)
    fraction = min(1.0, max(SAMPLE_SHARE, LEAST_SAMPLE / len(requests)))
    rows = choose_sample(build_tree(hidden), hidden, fraction, seed)
    path = folder / "sample.jsonl"
    write_lengths(requests, rows, path)
    return f"sample:{path}", rows


def history(of: Recipe, data: Path, folder: Path) -> str:
    """What ``lengths`` must say to see the results of an earlier job of the same sources.

    The requests of that job lie beside its results, as ``earlier_requests.jsonl``.
    """
    past = mixture(of, data, earlier=True).requests
    write_requests(past, folder / "earlier_requests.jsonl")
    rows = np.arange(len(past))
    path = folder / "earlier_results.jsonl"
    write_lengths(past, rows, path)
    return f"history:{path}"


def noisy(requests: Requests, knowledge: str, seed: int = 0) -> Lengths:
    """True lengths times log-normal noise; ``misstated`` ones are taken for certain."""
    noise = np.random.default_rng([14, seed]).normal(0.0, SIGMA, len(requests))
    truth = requests.output_tokens.astype(np.float64)
    mean = np.clip(truth * np.exp(noise), 1.0, 131_072.0)
    cap = longest_outputs(requests.max_tokens)
    if knowledge == "misstated":
        stated = np.rint(mean)
        return Lengths.stated(stated).within(1.0, cap)
    return log_normal(mean, SIGMA).within(1.0, cap)


def _measures(prepared: Prepared, outcome: Prediction, kv_capacity_tokens: int) -> Row:
    run, bound = outcome.run, outcome.bound
    return {
        "density": prepared.expected.root_density,
        "makespan_s": run.makespan_s,
        "bound_s": bound.makespan_s,
        "share": bound.makespan_s / run.makespan_s,
        "compute_s": run.compute_s,
        "memory_s": run.memory_s,
        "steps": run.steps,
        "prefill_tokens": run.prefill_tokens,
        "least_prefill_tokens": prepared.prefill.tokens,
        "token_s": prepared.expected.prices.token_s,
        "bound_compute_s": bound.compute_s,
        "bound_memory_s": bound.memory_s,
        "bound_steps": bound.steps,
        "preemptions": run.preemptions,
        "kv_use": kv_use(run) / kv_capacity_tokens,
        "tail_s": run.tail_s,
        "sharing": run.prefix_sharing / prepared.sharing if prepared.sharing > 0 else 1.0,
        "parameters": {key: _plain(value) for key, value in dict(outcome.parameters).items()},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | bool | str | None) else str(value)


def kv_use(run: SimulatedRun) -> float:
    """Mean KV tokens held in the middle half of the run's time."""
    end_s, kv_tokens = run.series["end_s"], run.series["kv_tokens"]
    start_s = np.concatenate([[0.0], end_s[:-1]])
    low, high = run.makespan_s / 4, run.makespan_s * 3 / 4
    inside = np.clip(np.minimum(end_s, high) - np.maximum(start_s, low), 0.0, None)
    return float((kv_tokens * inside).sum() / max(inside.sum(), 1e-12))


def quality(lengths: Lengths, requests: Requests, rest: NDArray[np.bool_]) -> Row:
    """How good predicted lengths are.

    Args:
        lengths: as a planner believes them to be; n requests.
        requests: with the lengths that come true.
        rest: those whose length was not seen before; errors and quantiles are of them; bool [n].
    """
    truth = requests.output_tokens.astype(np.float64)
    row: Row = {"total": float(lengths.mean.sum(dtype=np.float64) / truth.sum())}
    if not rest.any():
        return row
    truth = truth[rest]
    for name, quantile in (("under_p50", lengths.p50), ("under_p90", lengths.p90)):
        # Many outputs are one token long: of those that are just as long, half are under.
        whole = np.rint(quantile[rest])
        row[name] = float((truth < whole).mean() + 0.5 * (truth == whole).mean())
    error = np.abs(lengths.mean[rest] - truth)
    row["mean_absolute"] = float(error.mean())
    row["mean_absolute_of_median"] = float(np.abs(lengths.p50[rest] - truth).mean())
    row["mean_tokens"] = float(truth.mean())
    return row


@lru_cache(maxsize=1)
def _mixture(number: int, data: Path, thin: int) -> Mixture:
    return mixture(recipe(number).thinned(thin), data)
