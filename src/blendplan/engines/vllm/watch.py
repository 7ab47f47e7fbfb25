"""`SchedulerWatch`: what vLLM's scheduler does in a step, read off its own output."""

from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from blendplan.engines.protocol import StepReport, StepWork


class SchedulerWatch:
    """Listens to a scheduler's two halves of a step, `schedule` and `update_from_output`.

    With asynchronous scheduling the next step is scheduled before the output of this one is
    there, so what was scheduled waits in a queue for the output.

    Args:
        scheduler: vLLM's scheduler, in this process.
        block_size: tokens per KV-cache block.
        log_steps: also measure the work of each step, which looks at every running request.
    """

    def __init__(self, scheduler: Any, block_size: int, *, log_steps: bool) -> None:
        self._scheduler = scheduler
        self._pool = scheduler.kv_cache_manager.block_pool
        self._block_size = block_size
        self._log_steps = log_steps
        self._without_cache: set[int] = set()
        self._ended: list[int] = []
        self._cached_tokens: dict[int, int] = {}
        self._preempted: list[int] = []
        self._resumed: list[int] = []
        self._under_way: deque[tuple[float, _Scheduled]] = deque()
        self._work: list[StepWork] = []
        self._last_end_s = 0.0
        self._most_tokens = int(scheduler.max_num_scheduled_tokens)
        self._schedule = scheduler.schedule
        self._update = scheduler.update_from_output
        scheduler.schedule = self._on_schedule
        scheduler.update_from_output = self._on_output

    def limit_prefill(self, prefill_tokens: int | None) -> None:
        """Let the next step compute this many prompt tokens beside a token of each running request.

        Running requests come first in vLLM's token budget, those that decode before the one that
        may be mid-prompt, so a smaller budget of the step is a limit on prefill. The one that is
        mid-prompt leaves its token to prefill, so the step has the size that the policy meant.
        None for any number.
        """
        budget = self._most_tokens
        if prefill_tokens is not None:
            budget = min(budget, max(1, len(self._scheduler.running) + prefill_tokens))
        self._scheduler.max_num_scheduled_tokens = budget

    def tell(self, report: StepReport) -> None:
        """Fill in what happened since the last report, and how things stand."""
        report.ended, self._ended = self._ended, []
        report.preempted, self._preempted = self._preempted, []
        report.resumed, self._resumed = self._resumed, []
        report.work, self._work = self._work, []
        report.running, report.waiting = self._scheduler.get_request_counts()
        report.free_kv_tokens = self._pool.get_num_free_blocks() * self._block_size
        running = self._scheduler.running
        # A prompt that is cut into chunks has used up its step: only the last one can be.
        if running and running[-1].is_prefill_chunk:
            report.backlog_tokens = running[-1].num_tokens - running[-1].num_computed_tokens

    def cached_tokens(self, rows: range) -> int:
        """Prompt tokens that the prefix cache held for several answers of one request."""
        return sum(self._cached_tokens.pop(row, 0) for row in rows)

    def _on_schedule(self, *args: Any, **kwargs: Any) -> Any:
        started_s = perf_counter()
        output = self._schedule(*args, **kwargs)
        for new in output.scheduled_new_reqs:
            if _is_one_of_several(new.req_id):
                self._cached_tokens.setdefault(_row(new.req_id), new.num_computed_tokens)
        if self._without_cache:
            back = self._without_cache.intersection(map(_row, output.num_scheduled_tokens))
            self._resumed.extend(sorted(back))
            self._without_cache -= back
        if output.preempted_req_ids:
            lost = [_row(request_id) for request_id in output.preempted_req_ids]
            self._preempted.extend(lost)
            self._without_cache.update(lost)
        if self._log_steps and output.total_num_scheduled_tokens:
            self._under_way.append((started_s, self._scheduled_work(output)))
        return output

    def _on_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = self._update(scheduler_output, *args, **kwargs)
        now_s = perf_counter()
        # Answers of one request end one by one, and vLLM's front end waits for the last.
        for outputs in result.values():
            self._ended.extend(
                _row(one.request_id)
                for one in outputs.outputs
                if one.finished and _is_one_of_several(one.request_id)
            )
        if self._log_steps and scheduler_output.total_num_scheduled_tokens:
            started_s, scheduled = self._under_way.popleft()
            used = self._pool.num_gpu_blocks - 1 - self._pool.get_num_free_blocks()
            self._work.append(
                StepWork(
                    prefill_tokens=scheduled.prefill_tokens,
                    prefill_sequences=scheduled.prefill_sequences,
                    prefill_pairs=scheduled.prefill_pairs,
                    decode_tokens=scheduled.decode_tokens,
                    kv_tokens_read=scheduled.kv_tokens_read,
                    # Steps that overlap share the time: each has it from the end of the last.
                    time_s=now_s - max(started_s, self._last_end_s),
                    kv_tokens_used=used * self._block_size,
                )
            )
        self._last_end_s = now_s
        return result

    def _scheduled_work(self, output: Any) -> "_Scheduled":
        work = _Scheduled()
        for request_id, new in output.num_scheduled_tokens.items():
            request = self._scheduler.requests[request_id]
            # The scheduler has counted this step's tokens as computed already.
            before = request.num_computed_tokens - new
            if new == 1 and before >= request.num_prompt_tokens:
                work.decode_tokens += 1
                work.kv_tokens_read += before + 1
            else:
                work.prefill_tokens += new
                work.prefill_sequences += 1
                work.prefill_pairs += new * before + new * (new + 1) / 2
        return work


@dataclass
class _Scheduled:
    """What a step will compute; see `StepWork`."""

    prefill_tokens: int = 0
    prefill_sequences: int = 0
    prefill_pairs: float = 0.0
    decode_tokens: int = 0
    kv_tokens_read: int = 0


def _row(request_id: str) -> int:
    """The row in a request id: ``row-suffix``, or ``answer_row-suffix`` of several answers."""
    answer, _, row = request_id.rpartition("-")[0].rpartition("_")
    return int(row) + int(answer or 0)


def _is_one_of_several(request_id: str) -> bool:
    return "_" in request_id.rpartition("-")[0]
