"""The simulated engine as an engine: it steps, and time on its clock is simulated."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blendplan import __version__
from blendplan.cost import StepTable
from blendplan.engines.engine import (
    Capacity,
    Choice,
    EngineRequest,
    Finished,
    Refused,
    StepReport,
    StepWork,
)
from blendplan.engines.sampling import generation_cap
from blendplan.schedule import EngineSettings, PolicyInput, StepPrices, make_policy
from blendplan.simulator import Workload
from blendplan.simulator import engine as loop
from blendplan.simulator.kv_cache import FREE, empty_cache
from blendplan.simulator.series import empty_series

_NONE = np.empty(0, dtype=np.int64)


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
            version=f"blendplan {__version__}",
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
        before = _Snapshot(self._engine)
        # The step loop asks its queue how much prefill a step may have.
        limit = self.capacity.max_num_batched_tokens if prefill_tokens is None else prefill_tokens
        queue = self._queue._replace(max_num_batched_tokens=limit)
        loop.run_steps(self._engine, self._cache, queue, self._table, self._series, 1)
        after = _Snapshot(self._engine)
        self._compare(before, after, report)
        return report

    def close(self) -> None:
        """Nothing to stop."""

    def _fits(self, row: int) -> bool:
        total = int(self._engine.prompt_tokens[row]) + int(self._engine.output_tokens[row])
        return total <= self.capacity.context_tokens

    def _compare(self, before: "_Snapshot", after: "_Snapshot", report: StepReport) -> None:
        engine = self._engine
        admitted = engine.admission[before.admitted : after.admitted]
        again, lost = _NONE, _NONE
        kept = np.ones(len(before.running), dtype=bool)
        if len(before.waiting_again) or len(after.waiting_again):
            again = np.setdiff1d(before.waiting_again, after.waiting_again)
            lost = np.setdiff1d(after.waiting_again, before.waiting_again)
            kept = ~np.isin(before.running, lost)
        done = np.concatenate([before.running[kept], admitted, again])
        done = done[engine.generated[done] == engine.output_tokens[done]]
        report.finished = [self._answer(int(row)) for row in done]
        report.preempted = lost.tolist()
        report.resumed = again.tolist()
        report.free_kv_tokens = int(self._cache.counts[FREE]) * self._cache.block_size
        report.running = len(after.running)
        queued = int(self._queue.cursor[1] - self._queue.cursor[0]) + 1
        report.waiting = len(after.waiting_again) + queued
        # What is left of prompts; a request that decodes has one token to compute.
        behind = _known(engine, after.running) - engine.computed[after.running]
        report.backlog_tokens = int(behind[behind > 1].sum())
        report.clock_s = after.clock_s
        report.steps = after.steps - before.steps
        if report.steps and self._log_steps:
            report.work.append(self._work(before, after, kept, admitted, again))

    def _work(
        self,
        before: "_Snapshot",
        after: "_Snapshot",
        kept: NDArray[np.bool_],
        admitted: NDArray[np.int64],
        again: NDArray[np.int64],
    ) -> StepWork:
        """What a step computed, from the tokens in the cache before and after it."""
        engine = self._engine
        served = engine.computed[before.running[kept]] > before.computed[kept]
        decoded = served & before.decoding[kept]
        rows = np.concatenate([before.running[kept][served & ~decoded], admitted, again])
        starts = np.concatenate(
            [
                before.computed[kept][served & ~decoded],
                engine.cached_tokens[admitted],
                engine.computed[again],
            ]
        ).astype(np.float64)
        new = engine.computed[rows] - starts
        prefill_tokens = after.prefill_tokens - before.prefill_tokens
        if len(again):
            # What they hit in the cache is not recorded; what they computed together is.
            new[-len(again) :] = (prefill_tokens - new.sum()) / len(again)
            starts[-len(again) :] -= new[-len(again) :]
        used = self._cache.blocks - int(self._cache.counts[FREE])
        return StepWork(
            prefill_tokens=prefill_tokens,
            prefill_sequences=len(rows),
            prefill_pairs=float((new * starts + new * (new + 1) / 2).sum()),
            decode_tokens=int(decoded.sum()),
            kv_tokens_read=int((before.computed[kept] + 1)[decoded].sum()),
            time_s=after.clock_s - before.clock_s,
            kv_tokens_used=used * self._cache.block_size,
        )

    def _answer(self, row: int) -> Finished:
        return Finished(
            row=row,
            choices=[Choice([], "", "length")],
            prompt_tokens=int(self._engine.prompt_tokens[row]),
            cached_tokens=int(self._engine.cached_tokens[row]),
            completion_tokens=int(self._engine.output_tokens[row]),
        )


class _Snapshot:
    """What a step changes, copied out of the arrays that it writes to."""

    def __init__(self, engine: loop.Engine) -> None:
        counts = engine.counts
        self.running: NDArray[np.int64] = engine.running[: counts[loop.RUNNING]].copy()
        self.waiting_again = engine.waiting_again[: counts[loop.WAITING_AGAIN]].copy()
        self.admitted = int(counts[loop.ADMITTED])
        self.computed: NDArray[np.int32] = engine.computed[self.running]
        self.decoding = (_known(engine, self.running) - self.computed == 1) & (
            engine.generated[self.running] > 0
        )
        self.steps = int(counts[loop.STEPS])
        self.prefill_tokens = int(counts[loop.PREFILL])
        self.clock_s = float(engine.seconds[loop.CLOCK])


def _known(engine: loop.Engine, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    known: NDArray[np.int32] = engine.prompt_tokens[rows] + engine.generated[rows]
    return known


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
