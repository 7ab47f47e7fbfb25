"""The runs that matter: the same requests in several orders, each tuned, interleaved."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from blendplan.cost.calibration.from_steps import LEAST_STEPS
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.proving.bench import Bench, TimeIsOverError
from blendplan.proving.parts.steps import priced
from blendplan.proving.sampled import write_sample
from blendplan.proving.settings import ProofSettings
from blendplan.requests.columns import Requests


@dataclass(frozen=True)
class Order:
    """One way to run a workload.

    Attributes:
        name: of the way.
        policy: that orders the requests.
        stock: whether the engine's own scheduler gets them in that order.
        lengths: ``known``, or ``sample`` where only those of a sample are.
    """

    name: str
    policy: str
    stock: bool = False
    lengths: str = "known"


WORKLOADS = ("compute", "memory")
ORDERS = (
    Order("input", "fcfs", stock=True),
    Order("dfs", "dfs", stock=True),
    Order("blendserve", "blendserve"),
    Order("blend", "blend"),
    Order("blendserve, sample", "blendserve", lengths="sample"),
    Order("blend, sample", "blend", lengths="sample"),
)
DRAWN = ("input", "blend")
"""Orders whose KV cache over time is kept."""
FEWEST, MOST = 60, 20_000
# Share of the time that is left for a run to take, beside what starts of engines cost.
_USED = 0.7
_TRIAL = 200
_MOMENTS = 300


def measure(bench: Bench) -> dict[str, Any]:
    """Run all orders of all workloads; what was run in an earlier call is not run again.

    Every order runs once with each ``max_num_batched_tokens``, with known lengths; the repeats are
    then run with its best. Orders take turns, the first one another in each repeat.

    Returns:
        ``workloads``: by name, the requests, the best ``max_num_batched_tokens`` of each order,
        and ``orders``, see `summary`.

    Raises:
        TimeIsOverError: with what the runs so far say, which are kept.
    """
    found = {}
    for name in WORKLOADS:
        workload = Workload(bench, name)
        try:
            workload.run()
        except TimeIsOverError:
            found[name] = workload.summary()
            raise TimeIsOverError({"workloads": found}) from None
        found[name] = workload.summary()
    return {"workloads": found}


def seconds_of_a_run(
    settings: ProofSettings, left_s: float, workloads: int = len(WORKLOADS)
) -> float:
    """How long a run may take where so much time is left for all of them."""
    tried = len(settings.batched_tokens)
    known = sum(order.lengths == "known" for order in ORDERS)
    each = known * (tried if tried > 1 else 0) + len(ORDERS) * settings.repeats
    return _USED * max(0.0, left_s) / (workloads * each)


def course(made: Plan, log: Path) -> dict[str, dict[str, list[float]]]:
    """KV tokens in use over time, at a few hundred moments, planned and measured."""
    steps, series = pq.read_table(log, columns=["end_s", "kv_tokens_used"]), made.metadata["series"]
    chosen = np.linspace(0, len(steps) - 1, min(_MOMENTS, len(steps))).astype(np.int64)
    return {
        "planned": {word: list(series[word]) for word in ("end_s", "kv_tokens")},
        "measured": {
            "end_s": steps["end_s"].to_numpy()[chosen].tolist(),
            "kv_tokens": steps["kv_tokens_used"].to_numpy()[chosen].tolist(),
        },
    }


class Workload:
    """All runs of one workload.

    Args:
        bench: runs them.
        name: of the workload.
    """

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self.name = name
        self._plans: dict[tuple[str, int], Plan] = {}
        self._requests: Requests | None = None

    @property
    def requests(self) -> Requests:
        """Its requests, as many as the time allows; as many as before where some have run."""
        if self._requests is None:
            sizes = self._bench.folder.values.setdefault("requests", {})
            if self.name not in sizes:
                sizes[self.name] = self._size()
            asked = self._bench.settings.requests
            if asked is not None and asked != sizes[self.name]:
                raise BlendplanError(
                    f"the runs so far are of {sizes[self.name]:,} requests, not {asked:,}; leave "
                    "--requests out, or give another -o"
                )
            self._requests = self._bench.job(self.name, sizes[self.name])
        return self._requests

    def run(self) -> None:
        """Run what has not been run.

        Raises:
            TimeIsOverError: as of `measure`.
        """
        settings = self._bench.settings
        if len(settings.batched_tokens) > 1:
            for tokens in settings.batched_tokens:
                for order in ORDERS:
                    if order.lengths == "known":
                        self._once(order, tokens, repeat=0)
        for repeat in range(1, settings.repeats + 1):
            turn = repeat % len(ORDERS)
            for order in (*ORDERS[turn:], *ORDERS[:turn]):
                self._once(order, self._best(order), repeat)

    def summary(self) -> dict[str, Any]:
        """What came of it, JSON values.

        Of each order: ``batched_tokens``; ``measured_s``, of every repeat; ``median_s``;
        ``predicted_s``; ``gain``, by which its median throughput is above that of each stock order,
        with the least and the most over repeats that stood side by side, and what the plans
        predict, ``predicted``, None where one of them does not know the lengths.
        """
        orders: dict[str, Any] = {}
        for order in ORDERS:
            runs = list(self._runs(order))
            if not runs:
                continue
            orders[order.name] = {
                "policy": order.policy,
                "stock": order.stock,
                "lengths": order.lengths,
                "batched_tokens": runs[0]["batched_tokens"],
                "measured_s": [run["measured_s"] for run in runs],
                "median_s": statistics.median(run["measured_s"] for run in runs),
                "predicted_s": runs[0]["predicted_s"],
                "preemptions": statistics.median(run["preemptions"] for run in runs),
                "prefix_sharing": statistics.median(run["prefix_sharing"] for run in runs),
                "kv_tokens": runs[0]["kv_tokens"],
            }
        for order in ORDERS:
            if order.name in orders:
                orders[order.name]["gain"] = {
                    base.name: self._gain(orders[order.name], orders[base.name])
                    for base in ORDERS
                    if base.stock and base is not order and base.name in orders
                }
        return {"requests": len(self.requests), "orders": orders}

    def _gain(self, order: dict[str, Any], base: dict[str, Any]) -> dict[str, float | None]:
        # A plan that guesses lengths predicts other work than one that knows them.
        known = order["lengths"] == base["lengths"] == "known"
        both = zip(base["measured_s"], order["measured_s"], strict=False)
        single = [b / o - 1.0 for b, o in both]
        return {
            "median": base["median_s"] / order["median_s"] - 1.0,
            "least": min(single),
            "most": max(single),
            "predicted": base["predicted_s"] / order["predicted_s"] - 1.0 if known else None,
        }

    def _once(self, order: Order, tokens: int, repeat: int) -> None:
        """One run, unless it is there."""
        bench = self._bench
        runs = self._runs(order, repeats=(repeat,))
        if any(run["batched_tokens"] == tokens for run in runs):
            return
        made = self._plan(order, tokens)
        typical_s = made.metadata["predicted"]["makespan_s"]
        if bench.clock.left_s < typical_s:
            raise TimeIsOverError
        name = f"{self.name} {order.name} {tokens} {repeat}".replace(",", "").replace(" ", "-")
        run = bench.run(made, name, stock=order.stock)
        logged = pq.read_metadata(bench.step_log(name)).num_rows >= LEAST_STEPS
        bench.folder.runs.append(
            {"workload": self.name, "order": order.name, "repeat": repeat}
            | {"batched_tokens": tokens, "lengths": order.lengths, "stock": order.stock}
            | run
            | {"priced": priced(bench, name, bench.gpu) if logged else None}
            | {"priced_shipped": priced(bench, name, bench.catalogue_gpu) if logged else None}
        )
        if logged and repeat == 1 and order.name in DRAWN:
            bench.folder.runs[-1]["course"] = course(made, bench.step_log(name))
        bench.folder.write()

    def _plan(self, order: Order, tokens: int) -> Plan:
        key = order.name, tokens
        if key not in self._plans:
            lengths = order.lengths
            if lengths == "sample":
                path = self._bench.folder.file(f"{self.name}.sample.jsonl")
                write_sample(self.requests, path, self._bench.settings.seed)
                lengths = f"sample:{path}"
            self._plans[key] = self._bench.plan(
                self.requests, order.policy, batched_tokens=tokens, lengths=lengths
            )
        return self._plans[key]

    def _best(self, order: Order) -> int:
        """The ``max_num_batched_tokens`` with which the order was fastest."""
        tuned = next(one for one in ORDERS if one.policy == order.policy)
        tried = {
            run["batched_tokens"]: run["measured_s"] for run in self._runs(tuned, repeats=(0,))
        }
        return min(tried, key=lambda tokens: tried[tokens], default=max(self._values))

    @property
    def _values(self) -> tuple[int, ...]:
        return self._bench.settings.batched_tokens

    def _runs(
        self, order: Order, repeats: tuple[int, ...] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Runs of an order that are done; the repeats without others."""
        for run in self._bench.folder.runs:
            if (run["workload"], run["order"]) == (self.name, order.name):
                wanted = run["repeat"] > 0 if repeats is None else run["repeat"] in repeats
                if wanted:
                    yield run

    def _size(self) -> int:
        """Requests that the time is enough for, by what a small job of them should take."""
        settings, bench = self._bench.settings, self._bench
        if settings.requests is not None:
            return settings.requests
        predicted = bench.plan(bench.job(self.name, _TRIAL), "fcfs").metadata["predicted"]
        workloads = len(WORKLOADS) - WORKLOADS.index(self.name)
        each_s = seconds_of_a_run(settings, bench.clock.left_s, workloads)
        return int(min(MOST, max(FEWEST, _TRIAL * each_s / predicted["makespan_s"])))
