"""`StepWatch`: what each step of vLLM's scheduler computes, and how long it took."""

from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from blendplan.engines.protocol import StepWork


class StepWatch:
    """Looks at the two halves of a step, `schedule` and `update_from_output`.

    With asynchronous scheduling the next step is scheduled before the output of this one is
    there, so what was scheduled waits in a queue for the output.

    Args:
        scheduler: a `PlannedScheduler`.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._under_way: deque[tuple[float, _Scheduled]] = deque()
        self._last_end_s = 0.0

    def scheduled(self, output: Any) -> None:
        """A step was scheduled."""
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
        self._under_way.append((perf_counter(), work))

    def ended(self) -> StepWork:
        """The oldest step that was scheduled has its output."""
        started_s, work = self._under_way.popleft()
        now_s = perf_counter()
        # Steps that overlap share the time: each has it from the end of the last.
        time_s = now_s - max(started_s, self._last_end_s)
        self._last_end_s = now_s
        running, waiting = self._scheduler.get_request_counts()
        return StepWork(
            prefill_tokens=work.prefill_tokens,
            prefill_sequences=work.prefill_sequences,
            prefill_pairs=work.prefill_pairs,
            decode_tokens=work.decode_tokens,
            kv_tokens_read=work.kv_tokens_read,
            time_s=time_s,
            kv_tokens_used=self._scheduler.used_kv_tokens,
            running=running,
            waiting=waiting,
        )


@dataclass
class _Scheduled:
    """What a step will compute; see `StepWork`."""

    prefill_tokens: int = 0
    prefill_sequences: int = 0
    prefill_pairs: float = 0.0
    decode_tokens: int = 0
    kv_tokens_read: int = 0
