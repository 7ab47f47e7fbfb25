"""`simulate_run`: drive the simulated engine to the end and gather what happened."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.policy.progress import Progress as RunProgress
from blendplan.policy.state_machine import Policy
from blendplan.simulator.kv import cache_for
from blendplan.simulator.loop import step_loop
from blendplan.simulator.series import empty_series, means
from blendplan.simulator.steps import Engine, generated_tokens, idle_engine
from blendplan.simulator.workload import Workload

Progress = Callable[[int, int], None]
Revise = Callable[[Policy, RunProgress], Policy | None]
"""The policy to go on with, given the present one and how far the run is; None ends the asking."""

# Steps between two returns from compiled code: often enough for Ctrl-C and a progress bar.
_STEPS_PER_CALL = 20_000

# Columns of `SimulatedRun` with one entry per request.
PER_REQUEST = (
    "admission_step",
    "start_s",
    "finish_s",
    "cached_tokens",
    "side",
    "share_tokens",
    "prefill_budget",
)


@dataclass(frozen=True)
class SimulatedRun:
    """What happened in a simulated run of n requests.

    Attributes:
        admission: requests in the order of their first admission; int64 [n].
        admission_step: step of the first admission, per request; int64 [n].
        start_s, finish_s: first admission and end, per request; float64 [n].
        cached_tokens: prompt tokens hit in the prefix cache at the first admission; int32 [n].
        side: 0 compute, 1 memory, per request; int8 [n].
        share_tokens: memory partition in force at admission, compute and memory side; int64 [n, 2].
        prefill_budget: prefill tokens allowed in the step of admission; int32 [n].
        makespan_s: end of the last step.
        compute_s, memory_s: sums over all steps of the compute and the memory time.
        steps, preemptions: counts.
        prefill_tokens: prompt tokens computed, recomputation after preemption included.
        prompt_tokens, output_tokens: totals over all requests.
        mixed_steps: number of steps that compute prompt tokens, by all of their tokens; int64
            [max_num_batched_tokens + 1].
        decode_steps: number of steps that only decode, by their sequences; int64
            [max_num_seqs + 1].
        series: `SERIES_NAMES` as arrays of equal length, at most 512 points; ``end_s`` is the
            clock, all others are means over the steps of a point.
    """

    admission: NDArray[np.int64]
    admission_step: NDArray[np.int64]
    start_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    cached_tokens: NDArray[np.int32]
    side: NDArray[np.int8]
    share_tokens: NDArray[np.int64]
    prefill_budget: NDArray[np.int32]
    makespan_s: float
    compute_s: float
    memory_s: float
    steps: int
    preemptions: int
    prefill_tokens: int
    prompt_tokens: int
    output_tokens: int
    mixed_steps: NDArray[np.int64]
    decode_steps: NDArray[np.int64]
    series: dict[str, NDArray[np.float64]]

    @property
    def throughput_tokens_per_s(self) -> float:
        """Prompt plus output tokens per second (paper 6.3)."""
        tokens = self.prompt_tokens + self.output_tokens
        return tokens / self.makespan_s if self.makespan_s > 0 else 0.0

    @property
    def prefix_sharing(self) -> float:
        """Share of all prompt tokens that were hit in the prefix cache at first admission."""
        return float(self.cached_tokens.sum(dtype=np.int64)) / max(1, self.prompt_tokens)

    @property
    def tail_s(self) -> float:
        """Time from the last first admission to the end: nothing new fills the steps any more."""
        return self.makespan_s - float(self.start_s.max(initial=0.0))

    def in_order(self, requests: NDArray[np.int64]) -> "SimulatedRun":
        """The same run with its requests renumbered.

        Args:
            requests: present number of each request, in the new order; int64 [n].
        """
        number = np.empty(len(requests), dtype=np.int64)
        number[requests] = np.arange(len(requests))
        per_request = {name: getattr(self, name)[requests] for name in PER_REQUEST}
        return replace(self, admission=number[self.admission], **per_request)

    def turnaround_s(self) -> dict[str, float]:
        """P50, P95 and P99 of the time from the start of the run to a request's end."""
        if not len(self.finish_s):
            return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
        values = np.quantile(self.finish_s, [0.5, 0.95, 0.99])
        return dict(zip(("p50", "p95", "p99"), map(float, values), strict=True))


def progress_of(engine: Engine) -> RunProgress:
    """How far the simulated engine is."""
    now = engine.now[0]
    n = len(engine.prompt_tokens)
    admitted = np.zeros(n, dtype=np.bool_)
    admitted[engine.admission[: now.admitted]] = True
    generated = generated_tokens(engine)
    finished = generated == engine.output_tokens
    return RunProgress(np.sort(engine.running[: now.running]), admitted, finished, generated)


def simulate_run(
    workload: Workload,
    policy: Policy,
    limits: EngineLimits,
    table: StepTable,
    *,
    layout: KvLayout | None = None,
    progress: Progress | None = None,
    revise: Revise | None = None,
    revise_every: int = 64,
) -> SimulatedRun:
    """Run every request of ``workload`` under ``policy``.

    Args:
        workload: the requests, with the output lengths that really happen.
        policy: a fresh policy; its state is used up.
        limits: limits of the engine.
        table: price of a step, made for these limits.
        layout: of the KV cache; None where all layers keep all tokens.
        progress: called with (finished requests, all requests) now and then.
        revise: asked every so many steps for the policy to go on with.
        revise_every: how many; tries of an engine in which everybody was preempted count too.

    Raises:
        BlendplanError: a request can never fit the KV cache.
    """
    workload.check_fits(limits, layout)
    engine = idle_engine(
        workload.prompt_tokens, workload.output_tokens, limits, table.reach, layout
    )
    cache = cache_for(workload, limits, layout)
    series = empty_series()
    run_steps = step_loop(policy.transitions)
    now = engine.now[0]
    before = (-1, -1)
    while True:
        most_steps = _STEPS_PER_CALL if revise is None else revise_every
        if run_steps(engine, cache, policy.state, table, series, most_steps):
            break
        if before == (now.steps, now.finished):
            raise BlendplanError(
                f"policy {policy.name!r} admits none of the {len(workload) - now.finished} waiting "
                f"requests to an idle engine; please report this with the request file"
            )
        before = (int(now.steps), int(now.finished))
        if revise is not None:
            revised = revise(policy, progress_of(engine))
            revise = None if revised is None else revise
            policy = policy if revised is None else revised
        if progress is not None:
            progress(int(now.finished), len(workload))
    return SimulatedRun(
        admission=engine.admission,
        admission_step=engine.admission_step,
        start_s=engine.span_s[:, 0].copy(),
        finish_s=engine.span_s[:, 1].copy(),
        cached_tokens=engine.cached_tokens,
        side=policy.side,
        share_tokens=engine.share_tokens,
        prefill_budget=engine.prefill_budget,
        makespan_s=float(now.clock_s),
        compute_s=float(now.compute_s),
        memory_s=float(now.memory_s),
        steps=int(now.steps),
        preemptions=int(now.preemptions),
        prefill_tokens=int(now.prefill_tokens),
        prompt_tokens=int(workload.prompt_tokens.sum(dtype=np.int64)),
        output_tokens=int(workload.output_tokens.sum(dtype=np.int64)),
        mixed_steps=engine.mixed_steps,
        decode_steps=engine.decode_steps,
        series=means(series, int(now.steps)),
    )
