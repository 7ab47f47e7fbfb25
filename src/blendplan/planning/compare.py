"""`compare`: several policies on the same requests and the same machine."""

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.arguments import text
from blendplan.cost.machine import Machine, check_engine_arguments, machine
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.lengths.registry import AUTO
from blendplan.planning.bound import Bound
from blendplan.planning.options import PlanOptions, check_requests
from blendplan.planning.part import take_part
from blendplan.planning.prepare import Prepared, Progress, prepare
from blendplan.planning.replicas import divide, join_runs
from blendplan.planning.run_policy import Prediction, run_policy
from blendplan.planning.verdict import Circumstances, Verdict, verdict
from blendplan.policy.registry import POLICIES
from blendplan.printable import show
from blendplan.requests.columns import Requests, without_lengths
from blendplan.requests.context import within_context
from blendplan.simulator.simulate import SimulatedRun
from blendplan.simulator.workload import Workload


@dataclass(frozen=True)
class Outcome:
    """One policy of a comparison.

    Attributes:
        prediction: what happened in simulation, and the lower bound.
        plan_wall_s: seconds that planning with this policy takes, the shared stages included.
    """

    prediction: Prediction
    plan_wall_s: float

    @property
    def run(self) -> SimulatedRun:
        """What happened in simulation."""
        return self.prediction.run

    @property
    def bound(self) -> Bound:
        """Lower bound on the makespan of any schedule."""
        return self.prediction.bound


@dataclass(frozen=True)
class Comparison:
    """Policies on the same requests and the same machine.

    Attributes:
        target: the machine.
        prepared: the stages that all policies share.
        outcomes: by policy name, in the order asked for.
    """

    target: Machine
    prepared: Prepared
    outcomes: dict[str, Outcome]

    @cached_property
    def verdict(self) -> Verdict:
        """What the comparison comes to, in words."""
        makespan_s = {name: outcome.run.makespan_s for name, outcome in self.outcomes.items()}
        return verdict(makespan_s, circumstances(self))


def compare(
    requests: Requests,
    *,
    policies: Sequence[str],
    gpu: str | Path | GpuSpec,
    model: str | Path | ModelSpec = "llama-3.1-8b",
    replicas: int = 1,
    lengths: str = "auto",
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    progress: Progress | None = None,
    **engine: Any,
) -> Comparison:
    """Simulate several policies on the same requests.

    The simulated engine generates the known output length of a request where it has one, and
    elsewhere one that is drawn from its prediction. Policies see what ``lengths`` predicts; with
    ``prior``, ``sample:FILE`` and ``history:FILE`` also of requests whose length is known, so that
    a prediction can be judged.

    Args: as of `plan`.

    Raises:
        BlendplanError: as `plan`.
    """
    check_requests(requests)
    options = PlanOptions(replicas, lengths, preserve_sharing, seed, effort, replan, progress)
    replicas, lengths, preserve_sharing = (
        options.replicas,
        options.lengths,
        options.preserve_sharing,
    )
    seed, effort, replan = options.seed, options.effort, options.replan
    policies = _checked_names(policies)
    check_engine_arguments("compare", engine)
    target = machine(gpu, model, **engine)
    requests = within_context(requests, target.max_model_len)
    started = time.perf_counter()
    seen = requests if lengths in (AUTO, "known") else without_lengths(requests)
    prepared = prepare(
        seen,
        target,
        lengths=lengths,
        preserve_sharing=preserve_sharing,
        seed=seed,
        progress=progress,
    )
    known = prepared.sequences.spread(requests.output_tokens)
    workload = _with_known_lengths(prepared.workload, known)
    prepared = replace(prepared, requests=requests, workload=workload)
    if replicas != 1:
        outcomes = _on_replicas(prepared, target, policies, options, started)
        return Comparison(target, prepared, outcomes)
    shared_s = time.perf_counter() - started
    outcomes = {}
    for name in policies:
        started = time.perf_counter()
        prediction = run_policy(
            prepared,
            target,
            name,
            seed=seed,
            effort=effort,
            replan=replan,
            progress=progress,
            chances=False,
        )
        outcomes[name] = Outcome(prediction, shared_s + time.perf_counter() - started)
    return Comparison(target, prepared, outcomes)


def _checked_names(policies: Sequence[str]) -> list[str]:
    right = "give the names of at least one policy, as a list"
    if not isinstance(policies, Sequence | Set) or isinstance(policies, str | bytes):
        raise BlendplanError(f"policies is {show(policies)}; {right}")
    names = list(policies)
    if not names:
        raise BlendplanError(f"policies is empty; {right}")
    for name in names:
        POLICIES.check(text("policies", name, "give names of policies"))
    return names


def _on_replicas(
    prepared: Prepared,
    target: Machine,
    policies: Sequence[str],
    options: PlanOptions,
    started: float,
) -> dict[str, Outcome]:
    """Every policy on the same division; one part at a time is held in memory."""
    found: dict[str, list[tuple[NDArray[np.int64], Prediction]]] = {name: [] for name in policies}
    own_s = dict.fromkeys(policies, 0.0)
    replicas = options.replicas
    for rows in divide(prepared, target, replicas):
        part = take_part(prepared, target, rows, preserve_sharing=options.preserve_sharing)
        for name in policies:
            begun = time.perf_counter()
            prediction = run_policy(
                part,
                target,
                name,
                seed=options.seed,
                effort=options.effort,
                replan=options.replan,
                progress=options.progress,
                chances=False,
            )
            found[name].append((prepared.sequences.of(rows), prediction))
            own_s[name] += time.perf_counter() - begun
    shared_s = time.perf_counter() - started - sum(own_s.values())
    return {
        name: Outcome(join_runs(prepared, target, found[name], replicas), shared_s + own_s[name])
        for name in policies
    }


def _with_known_lengths(workload: Workload, known: NDArray[np.int32]) -> Workload:
    output_tokens = np.where(known > 0, known, workload.output_tokens).astype(np.int32)
    return replace(workload, output_tokens=output_tokens)


def circumstances(result: Comparison) -> Circumstances:
    """What decides whether order matters, from a comparison of at least one policy."""
    prepared, target = result.prepared, result.target
    bound = next(iter(result.outcomes.values())).bound
    outputs = int(prepared.workload.output_tokens.sum(dtype="int64"))
    running = len(prepared.sequences)
    holding, workload = prepared.expected.holding, prepared.workload
    whole = workload.prompt_tokens.astype("int64") + workload.output_tokens - 1
    needed = holding.growth * (prepared.prefill.tokens + outputs - running)
    needed += float(holding.level(whole).sum())
    return Circumstances(
        requests=running,
        max_num_seqs=target.limits.max_num_seqs,
        # Every sequence's last block is half empty on average.
        needed_kv_tokens=needed + running * target.limits.block_size / 2,
        kv_tokens=target.limits.kv_tokens,
        compute_s=bound.compute_s,
        memory_s=bound.memory_s,
        overlap=target.table.overlap,
        sharing=prepared.sharing,
        bound_s=bound.makespan_s,
    )
