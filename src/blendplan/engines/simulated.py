"""The simulated engine as an engine: it steps, and time on its clock is simulated."""

from collections.abc import Sequence

import numpy as np

from blendplan import __version__
from blendplan.cost.step import StepTable
from blendplan.engines.protocol import (
    Capacity,
    Choice,
    EngineRequest,
    Finished,
    Refused,
    StepReport,
)
from blendplan.engines.simulated_steps import Difference, Snapshot, known_tokens
from blendplan.engines.words import generation_cap
from blendplan.hardware.engine_settings import EngineSettings
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.registry import make_policy
from blendplan.simulator import steps as loop
from blendplan.simulator.kv_cache import FREE, empty_cache
from blendplan.simulator.series import empty_series
from blendplan.simulator.workload import Workload


class SimulatedEngine:
    """The step loop of `blendplan.simulator`, fed request by request.

    Args:
        workload: all requests that may be submitted; rows are theirs. They generate the output
            lengths that it says, unless a request knows its own.
        settings: limits of the engine.
        table: price of a step.
        log_steps: report the work of each step.
    """

    def __init__(
        self,
        workload: Workload,
        settings: EngineSettings,
        table: StepTable,
        *,
        log_steps: bool = False,
    ) -> None:
        n = len(workload)
        self.capacity = Capacity(
            kv_tokens=settings.kv_blocks * settings.block_size,
            block_size=settings.block_size,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            context_tokens=settings.kv_blocks * settings.block_size + 1,
            graph_sizes=[],
            version=f"simulated by blendplan {__version__}",
        )
        self._table = table
        self._log_steps = log_steps
        self._engine = loop.idle_engine(
            workload.prompt_tokens, workload.output_tokens.copy(), settings
        )
        chains = workload.chains
        self._cache = empty_cache(
            settings.kv_blocks,
            settings.block_size,
            chains.chain_ids,
            chains.chain_offsets,
            chains.count,
        )
        self._series = empty_series()
        # A queue of which only what was submitted is visible to the step loop.
        self._queue = make_policy("fcfs", _no_expectations(n), settings).state
        self._queue.cursor[:] = 0, -1

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        """Submit and take one simulated step."""
        report = StepReport()
        for request in requests:
            cap = generation_cap(request)
            if cap is not None and request.output_tokens > 0:
                self._engine.output_tokens[request.row] = cap
            if self._fits(request.row):
                self._queue.cursor[1] += 1
                self._queue.order[self._queue.cursor[1]] = request.row
            else:
                report.refused.append(_too_long(request.row))
        before = Snapshot(self._engine)
        # The step loop asks its queue how much prefill a step may have.
        limit = self.capacity.max_num_batched_tokens if prefill_tokens is None else prefill_tokens
        queue = self._queue._replace(max_num_batched_tokens=limit)
        loop.run_steps(self._engine, self._cache, queue, self._table, self._series, 1)
        after = Snapshot(self._engine)
        self._report(after, Difference(self._engine, before, after), report)
        return report

    def close(self) -> None:
        """Nothing to stop."""

    def _fits(self, row: int) -> bool:
        total = int(self._engine.prompt_tokens[row]) + int(self._engine.output_tokens[row])
        return total <= self.capacity.context_tokens

    def _report(self, after: Snapshot, step: Difference, report: StepReport) -> None:
        engine, cache = self._engine, self._cache
        report.finished = [self._answer(int(row)) for row in step.finished]
        report.preempted = step.lost.tolist()
        report.resumed = step.again.tolist()
        report.free_kv_tokens = int(cache.counts[FREE]) * cache.block_size
        report.running = len(after.running)
        queued = int(self._queue.cursor[1] - self._queue.cursor[0]) + 1
        report.waiting = len(after.waiting_again) + queued
        # What is left of prompts; a request that decodes has one token to compute.
        behind = known_tokens(engine, after.running) - engine.computed[after.running]
        report.backlog_tokens = int(behind[behind > 1].sum())
        report.clock_s = after.clock_s
        report.steps = step.steps
        if step.steps and self._log_steps:
            report.work.append(step.work(cache))

    def _answer(self, row: int) -> Finished:
        return Finished(
            row=row,
            choices=[Choice([], "", "length")],
            prompt_tokens=int(self._engine.prompt_tokens[row]),
            cached_tokens=int(self._engine.cached_tokens[row]),
            completion_tokens=int(self._engine.output_tokens[row]),
        )


def _too_long(row: int) -> Refused:
    message = "prompt and output together are longer than the KV cache"
    return Refused(row, "context_length_exceeded", message, retry=False)


def _no_expectations(n: int) -> PolicyInput:
    """What a plain queue needs to know of n requests: nothing."""
    nothing = np.zeros(n)
    rows = np.zeros(n, dtype=np.int64)
    return PolicyInput(
        depth_first=rows,
        family=rows,
        by_density=rows,
        prompt_tokens=nothing,
        new_prompt_tokens=nothing,
        output_tokens=nothing,
        output_spread=nothing,
        density=nothing,
        root_density=0.0,
        prices=StepPrices(token_s=1.0, read_s=1.0, least_tokens=1),
    )
