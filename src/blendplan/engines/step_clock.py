"""What the steps of an engine compute, and how long each took."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from blendplan.cost.reach import ALL_TOKENS, Reach, pairs_of, tokens_read_by
from blendplan.engines.protocol import StepWork


@dataclass
class ScheduledWork:
    """What a step will compute; see `StepWork`.

    Attributes:
        reach: how far back attention looks, by which the sums below are taken.
    """

    reach: Reach = ALL_TOKENS
    prefill_tokens: int = 0
    prefill_sequences: int = 0
    prefill_pairs: float = 0.0
    decode_tokens: int = 0
    kv_tokens_read: float = 0.0

    def prefill(self, computed_tokens: int, new_tokens: int) -> None:
        """A sequence computes a part of its prompt, behind what the KV cache has of it."""
        self.prefill_tokens += new_tokens
        self.prefill_sequences += 1
        self.prefill_pairs += pairs_of(self.reach, computed_tokens, new_tokens)

    def decode(self, context_tokens: Sequence[int]) -> None:
        """Sequences decode a token each; their contexts have so many, that token included."""
        self.decode_tokens += len(context_tokens)
        self.kv_tokens_read += tokens_read_by(self.reach, context_tokens)


class StepClock:
    """Times the steps of a scheduler.

    Where scheduling and computing overlap, the next step is scheduled before the output of this one
    is there, so what was scheduled waits in a queue for the output.
    """

    def __init__(self) -> None:
        self._under_way: deque[tuple[float, ScheduledWork]] = deque()
        self._last_end_s = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a step that was scheduled has no output yet."""
        return bool(self._under_way)

    def scheduled(self, work: ScheduledWork) -> None:
        """A step was scheduled."""
        self._under_way.append((perf_counter(), work))

    def ended(self, *, kv_tokens_used: int, waiting: int, running: int | None = None) -> StepWork:
        """The oldest step that was scheduled has its output.

        Args:
            kv_tokens_used, waiting, running: as of `StepWork`; without ``running``, those that the
                step computed.
        """
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
            kv_tokens_read=round(work.kv_tokens_read),
            time_s=time_s,
            kv_tokens_used=kv_tokens_used,
            running=work.prefill_sequences + work.decode_tokens if running is None else running,
            waiting=waiting,
        )
