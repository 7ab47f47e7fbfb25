"""The simulated engine as an engine: it steps, and time on its clock is simulated.

It takes the very steps of the compiled step loop (`blendplan.simulator.loop`), made of the same
parts. Only the policy is asked from Python, one request at a time, as a real engine's scheduler
would: so a replay of a plan takes exactly the planned steps.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan import __version__
from blendplan.cost.step import StepTable
from blendplan.engines.protocol import (
    Admission,
    Capacity,
    Choice,
    EngineRequest,
    Finished,
    Refused,
    StepReport,
    StepWork,
)
from blendplan.engines.words import generation_cap
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.simulator import steps
from blendplan.simulator.kv_cache import empty_cache, used_tokens
from blendplan.simulator.series import empty_series
from blendplan.simulator.workload import Workload


class SimulatedEngine:
    """The steps of `blendplan.simulator`, one at a time.

    Args:
        workload: all requests that may be submitted; rows are theirs. They generate the output
            lengths that it says, unless a request knows its own.
        limits: limits of the engine.
        table: price of a step.
        max_model_len: longest context that it takes; what the KV cache holds without it.
        log_steps: report the work of each step.
    """

    def __init__(
        self,
        workload: Workload,
        limits: EngineLimits,
        table: StepTable,
        *,
        max_model_len: int | None = None,
        log_steps: bool = False,
    ) -> None:
        held = limits.kv_blocks * limits.block_size + 1
        self.capacity = Capacity(
            limits=limits,
            context_tokens=held if max_model_len is None else min(held, max_model_len),
            graph_sizes=[],
            version=f"simulated by blendplan {__version__}",
        )
        self._table = table
        self._log_steps = log_steps
        self._engine = steps.idle_engine(
            workload.prompt_tokens, workload.output_tokens.copy(), limits
        )
        chains = workload.chains
        self._cache = empty_cache(
            limits.kv_blocks,
            limits.block_size,
            chains.chain_ids,
            chains.chain_offsets,
            chains.count,
        )
        self._series = empty_series()
        self._submitted: deque[EngineRequest] = deque()
        # Answers of requests that were taken, which come before any other request.
        self._entering: deque[int] = deque()
        self._several: dict[int, _Several] = {}

    def step(
        self, requests: Sequence[EngineRequest], prefill_tokens: int | None = None
    ) -> StepReport:
        """Submit and take one simulated step."""
        self._submitted.extend(requests)
        most = self.capacity.limits.max_num_batched_tokens
        limit = most if prefill_tokens is None else prefill_tokens
        queue = _Submitted(self._submitted, limit)
        report = self.step_asking(queue)
        report.preempted, report.resumed = queue.lost, queue.back
        return report

    def step_asking(self, admission: Admission) -> StepReport:
        """Take one simulated step, asking inside it which request goes next."""
        engine, cache, report = self._engine, self._cache, StepReport()
        now, step = engine.now[0], engine.step[0]
        steps.begin(engine, admission.begin_step(float(used_tokens(cache))))
        steps.serve(engine, cache)
        for row in engine.waiting_again[now.waiting_again - step.lost : now.waiting_again]:
            admission.preempted(int(row))
        self._admit(admission, report)
        report.steps = int(steps.price(engine, cache, self._table, self._series))
        if report.steps:
            steps.sample(engine, cache)
            if self._log_steps:
                report.work.append(self._work())
        report.ended = engine.done[: step.done].tolist()
        report.finished = [
            done for row in report.ended if (done := self._finished(row)) is not None
        ]
        self._report_load(report)
        return report

    def generated_tokens(self) -> NDArray[np.int32]:
        """Output tokens of each row so far; int32 [n]."""
        generated: NDArray[np.int32] = self._engine.generated.copy()
        return generated

    def close(self) -> None:
        """Nothing to stop."""

    def _admit(self, admission: Admission, report: StepReport) -> None:
        engine, cache, now = self._engine, self._cache, self._engine.now[0]
        while steps.may_admit(engine):
            if now.waiting_again > 0:
                row = int(engine.waiting_again[now.waiting_again - 1])
                if not steps.admit(engine, cache, row):
                    return
                admission.resumed(row)
                continue
            if self._entering:
                if not steps.admit(engine, cache, self._entering[0]):
                    return
                admission.admitted(self._entering.popleft())
                continue
            request = admission.next_request()
            if request is None:
                return
            rows = range(request.row, request.row + request.answers)
            cap = generation_cap(request)
            if cap is not None and request.output_tokens > 0:
                engine.output_tokens[rows.start : rows.stop] = cap
            if not all(map(self._ever_fits, rows)):
                for row in rows:
                    admission.admitted(row)
                report.refused.append(_too_long(request.row))
            elif steps.admit(engine, cache, request.row):
                admission.admitted(request.row)
                self._entering.extend(rows[1:])
                if len(rows) > 1:
                    several = _Several(request.row, _choices(request), len(rows))
                    self._several.update(dict.fromkeys(rows, several))
            else:
                return

    def _ever_fits(self, row: int) -> bool:
        total = int(self._engine.prompt_tokens[row]) + int(self._engine.output_tokens[row])
        return total <= self.capacity.context_tokens

    def _report_load(self, report: StepReport) -> None:
        engine, cache, now = self._engine, self._cache, self._engine.now[0]
        report.free_kv_tokens = int(cache.now[0].free) * cache.block_size
        report.running = int(now.running)
        report.waiting = int(now.waiting_again) + len(self._entering) + len(self._submitted)
        # What is left of prompts; a request that decodes has one token to compute.
        running = engine.running[: now.running]
        known = engine.prompt_tokens[running] + engine.generated[running]
        behind = known - engine.computed[running]
        report.backlog_tokens = int(behind[behind > 1].sum(dtype=np.int64))
        report.clock_s = float(now.clock_s)

    def _work(self) -> StepWork:
        step = self._engine.step[0]
        return StepWork(
            prefill_tokens=int(step.prefill_tokens),
            prefill_sequences=int(step.prefill_sequences),
            prefill_pairs=float(step.prefill_pairs),
            decode_tokens=int(step.decode_sequences),
            kv_tokens_read=int(step.kv_tokens_read),
            time_s=float(step.time_s),
            kv_tokens_used=int(used_tokens(self._cache)),
        )

    def _finished(self, row: int) -> Finished | None:
        """The request whose last answer ended in a row, None where others still run."""
        engine, several = self._engine, self._several.pop(row, _Several(row, 1, 1))
        several.left -= 1
        several.cached_tokens += int(engine.cached_tokens[row])
        several.completion_tokens += int(engine.output_tokens[row])
        if several.left:
            return None
        return Finished(
            row=several.row,
            choices=[Choice([], "", "length")] * several.choices,
            prompt_tokens=int(engine.prompt_tokens[row]),
            cached_tokens=several.cached_tokens,
            completion_tokens=several.completion_tokens,
        )


@dataclass
class _Several:
    """A request whose answers end one by one: how many are left, and totals of the others."""

    row: int
    choices: int
    left: int
    cached_tokens: int = 0
    completion_tokens: int = 0


def _choices(request: EngineRequest) -> int:
    """How many of its answers a request wants to see."""
    if "best_of" in request.parameters:
        return int(request.parameters.get("n", 1))
    return request.answers


class _Submitted:
    """Requests that were submitted, as `Admission`: they go in their order."""

    def __init__(self, queue: deque[EngineRequest], prefill_tokens: int) -> None:
        self._queue = queue
        self._prefill_tokens = prefill_tokens
        self.lost: list[int] = []
        self.back: list[int] = []

    def begin_step(self, used_kv_tokens: float) -> int:
        return self._prefill_tokens

    def next_request(self) -> EngineRequest | None:
        return self._queue[0] if self._queue else None

    def admitted(self, row: int) -> None:
        if self._queue and self._queue[0].row == row:
            self._queue.popleft()

    def preempted(self, row: int) -> None:
        self.lost.append(row)

    def resumed(self, row: int) -> None:
        self.back.append(row)


def _too_long(row: int) -> Refused:
    message = "prompt and output together are longer than the KV cache"
    return Refused(row, "context_length_exceeded", message, retry=False)
