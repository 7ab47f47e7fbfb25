"""`StepWatch`: what each step of SGLang's scheduler computes, and how long it took."""

from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from blendplan.engines.protocol import StepWork


class StepWatch:
    """Looks at the two halves of a step: what is to run, and its result.

    Where scheduling and computing overlap, the next step is scheduled before the result of this one
    is there, so what was scheduled waits in a queue for the result.

    Args:
        scheduler: a `PlannedScheduler`.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._under_way: deque[tuple[float, _Scheduled]] = deque()
        self._last_end_s = 0.0

    def scheduled(self, batch: Any, adder: Any) -> None:
        """A step was scheduled.

        Args:
            batch: what will run.
            adder: of its prompts, None where it only decodes.
        """
        work = _Scheduled()
        work.kv_tokens_read = int(batch.seq_lens_cpu.sum())
        decoding = batch.reqs
        if batch.forward_mode.is_extend():
            decoding = batch.decoding_reqs or []
            for request in adder.can_run_list:
                work.prefill(int(request.prefix_len), int(request.extend_len))
        work.decode_tokens = len(decoding)
        self._under_way.append((perf_counter(), work))

    def ended(self) -> StepWork:
        """The oldest step that was scheduled has its result."""
        started_s, work = self._under_way.popleft()
        now_s = perf_counter()
        # Steps that overlap share the time: each has it from the end of the last.
        time_s = now_s - max(started_s, self._last_end_s)
        self._last_end_s = now_s
        return StepWork(
            prefill_tokens=work.prefill_tokens,
            prefill_sequences=work.prefill_sequences,
            prefill_pairs=work.prefill_pairs,
            decode_tokens=work.decode_tokens,
            kv_tokens_read=work.kv_tokens_read,
            time_s=time_s,
            kv_tokens_used=self._scheduler.used_kv_tokens,
            running=work.prefill_sequences + work.decode_tokens,
            waiting=len(self._scheduler.waiting_queue),
        )


@dataclass
class _Scheduled:
    """What a step will compute; see `StepWork`."""

    prefill_tokens: int = 0
    prefill_sequences: int = 0
    prefill_pairs: float = 0.0
    decode_tokens: int = 0
    kv_tokens_read: int = 0

    def prefill(self, cached_tokens: int, new_tokens: int) -> None:
        """One of all sequences computes a part of its prompt."""
        self.prefill_tokens += new_tokens
        self.prefill_sequences += 1
        self.kv_tokens_read -= cached_tokens + new_tokens
        self.prefill_pairs += new_tokens * cached_tokens + new_tokens * (new_tokens + 1) / 2
