"""`Offer`: what the requests take on one combination, and `make_offer`, which finds it out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.lookup import known_model
from blendplan.lengths.predicted import Lengths
from blendplan.planning.outlook import Outlook
from blendplan.planning.part import take_part, thinned_rows
from blendplan.planning.prepare import prepare
from blendplan.planning.quoting.combinations import Combination
from blendplan.planning.quoting.limits import TimeShares, time_shares
from blendplan.planning.replicas import run_replicas
from blendplan.planning.run_policy import run_policy
from blendplan.planning.schedule_bound import schedule_bound
from blendplan.planning.tail import Tail
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree


@dataclass(frozen=True)
class Ground:
    """What all combinations have in common; worked out once.

    Attributes:
        requests: within the context of the model.
        tree: prefix tree of them.
        lengths: predicted for each of them.
    """

    requests: Requests
    tree: PrefixTree
    lengths: Lengths


@dataclass(frozen=True)
class How:
    """How each combination is planned; the arguments of `plan` by the same names."""

    policy: str
    preserve_sharing: float
    seed: int
    effort: int
    replan: bool
    tail: Tail | None = None


@dataclass(frozen=True)
class Offer:
    """What the requests take on one combination.

    Attributes:
        settings: values by the names of `LISTED`.
        gpu, model: names in their catalogues.
        gpus: GPUs of all engines together.
        kv_tokens: slots of the KV cache of each engine.
        simulated: requests that were simulated; all of them where the plan is whole.
        whole: whether the makespan is that of the plan, and no estimate from a part of it.
        outlook: makespans by chance.
        makespan_s, bound_s: predicted, and the bound for any schedule.
        prompt_tokens, output_tokens: totals.
        turnaround_s: ``p50``, ``p95`` and ``p99`` of the time from the start to a request's end.
        tail_s: from the last admission to the end.
        preemptions: of the simulated requests.
        shares: where the time goes.
        series: the run of the slowest engine over time, of a part where the plan is not whole; see
            `SimulatedRun`.
        notes: what the reader should know of prices, model and lengths.
    """

    settings: Mapping[str, Any]
    gpu: str
    model: str
    gpus: int
    kv_tokens: int
    simulated: int
    whole: bool
    outlook: Outlook
    makespan_s: float
    bound_s: float
    prompt_tokens: int
    output_tokens: int
    turnaround_s: Mapping[str, float]
    tail_s: float
    preemptions: int
    shares: TimeShares
    series: Mapping[str, NDArray[np.float64]]
    notes: tuple[str, ...]

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours, while the run lasts."""
        return self.gpus * self.makespan_s / 3600.0

    @property
    def throughput_tokens_per_s(self) -> float:
        """Prompt plus output tokens per second."""
        return (self.prompt_tokens + self.output_tokens) / self.makespan_s

    @property
    def bound_ratio(self) -> float:
        """Share of the makespan that no schedule can save."""
        return self.bound_s / self.makespan_s


def make_offer(ground: Ground, one: Combination, how: How, most: int | None) -> Offer:
    """Plan the requests for one combination.

    Args:
        ground: the requests.
        one: the combination.
        how: to plan.
        most: where there are more requests than this, a part of so many, or of as many as an engine
            has of them, is simulated, and all together are taken to reach the same share of their
            lower bound. None for no limit.
    """
    target, replicas = one.target, one.replicas
    prepared = prepare(
        ground.requests,
        target,
        lengths=ground.lengths,
        request_tree=ground.tree,
        preserve_sharing=how.preserve_sharing,
        seed=how.seed,
    )
    n = len(ground.requests)
    if most is None or n <= most:
        found = run_replicas(
            prepared,
            target,
            how.policy,
            replicas,
            preserve_sharing=how.preserve_sharing,
            seed=how.seed,
            effort=how.effort,
            replan=how.replan,
            tail=how.tail,
        )
        run, makespan_s, bound_s = found.run, found.run.makespan_s, found.bound.makespan_s
        shares = time_shares(prepared, target, run)
    else:
        n = min(most, -(-n // replicas))
        rows = thinned_rows(ground.tree.order, n)
        part = take_part(prepared, target, rows, preserve_sharing=how.preserve_sharing)
        found = run_policy(
            part,
            target,
            how.policy,
            seed=how.seed,
            effort=how.effort,
            replan=how.replan,
            tail=how.tail,
        )
        n, run = len(rows), found.run
        outputs = prepared.workload.output_tokens
        bound_s = schedule_bound(prepared, target, outputs, replicas=replicas).makespan_s
        makespan_s = bound_s * run.makespan_s / found.bound.makespan_s
        shares = time_shares(part, target, run)
    longer = makespan_s / run.makespan_s
    assert found.outlook is not None, "it was asked for"
    return Offer(
        settings=one.settings,
        gpu=target.gpu.name,
        model=target.model.name,
        gpus=one.gpus,
        kv_tokens=target.limits.kv_tokens,
        simulated=n,
        whole=n == len(ground.requests),
        outlook=found.outlook.scaled(longer),
        makespan_s=makespan_s,
        bound_s=bound_s,
        prompt_tokens=_total(prepared.workload.prompt_tokens),
        output_tokens=_total(prepared.workload.output_tokens),
        turnaround_s={name: longer * value for name, value in run.turnaround_s().items()},
        # A tail is as long whatever runs before it.
        tail_s=min(run.tail_s, makespan_s),
        preemptions=run.preemptions,
        shares=shares,
        series=run.series,
        notes=_notes(ground, one),
    )


def _notes(ground: Ground, one: Combination) -> tuple[str, ...]:
    target = one.target
    remarks = () if known_model(target.model) else target.model.remarks
    of_model = [f"model {target.model.name}: {remark}" for remark in remarks]
    return tuple(filter(None, (*of_model, target.costs.note, ground.lengths.note)))


def _total(tokens: NDArray[np.int32]) -> int:
    return int(tokens.sum(dtype=np.int64))
