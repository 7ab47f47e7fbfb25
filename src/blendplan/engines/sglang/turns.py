"""What SGLang's scheduler sees of its waiting queue in a step, and what it tries to admit.

`Scheduler._get_new_batch_prefill_raw` (managers/scheduler.py) goes through the waiting queue once,
tries each request, and stops at the first that it cannot take.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sglang.srt.managers.schedule_policy import AddReqResult, PrefillAdder

# Prompt tokens that are about as dear as a step without prefill.
_WORTH_A_STEP = 256


class Turns(list[Any]):
    """All requests that wait; who goes through them meets those that the policy asks for.

    Args:
        waiting: the requests.
        ask: those to try, one after the other.
    """

    def __init__(self, waiting: Iterable[Any], ask: Callable[[], Iterator[Any]]) -> None:
        super().__init__(waiting)
        self._ask: Callable[[], Iterator[Any]] | None = ask

    def __iter__(self) -> Iterator[Any]:
        """The first time the turns of this step, then all."""
        ask, self._ask = self._ask, None
        return super().__iter__() if ask is None else ask()


class PlannedAdder(PrefillAdder):  # type: ignore[misc]
    """SGLang's own, within a policy's prefill tokens.

    Requests of one batch do not share their prefix with each other: it is in the prefix cache when
    its batch is done. One whose prompt begins as that of a request that is being computed waits for
    that, where it spares more than a step costs.
    """

    rem_chunk_tokens: int | None
    rem_input_tokens: int
    _under_way: Iterable[Any] = ()

    def meter(self, prefill_tokens: int, *, goes_on: bool) -> None:
        """Take this many prompt tokens at most.

        Args:
            prefill_tokens: of the step, beside a token of each running sequence.
            goes_on: whether a prompt is cut: it leaves its token to prefill, and must go on by a
                page at least.
        """
        prefill_tokens += goes_on
        if self.rem_chunk_tokens is None:
            self.rem_input_tokens = min(self.rem_input_tokens, prefill_tokens)
            return
        left = min(self.rem_chunk_tokens, max(prefill_tokens, self.page_size))
        self.rem_chunk_tokens = max(left, self.page_size) if goes_on else left

    def wait_for(self, under_way: Iterable[Any]) -> None:
        """Requests whose prompts are being computed and not in the prefix cache yet."""
        self._under_way = under_way

    def add_one_req(self, req: Any, *args: Any, **kwargs: Any) -> Any:
        """As SGLang's."""
        if self._waits_for_its_prefix(req):
            return AddReqResult.OTHER
        return super().add_one_req(req, *args, **kwargs)

    def took(self, req: Any) -> bool:
        """Whether the last request that was tried has been given room."""
        return bool(self.can_run_list) and self.can_run_list[-1] is req

    def _waits_for_its_prefix(self, req: Any) -> bool:
        end = int(req.prefix_len) + _WORTH_A_STEP
        tokens: array[int] = req.full_untruncated_fill_ids
        if len(tokens) < end or getattr(self.tree_cache, "disable", True):
            return False
        head = tokens[:end]
        return any(
            other is not req
            and _namespace(other) == _namespace(req)
            and other.full_untruncated_fill_ids[:end] == head
            for requests in (self.can_run_list, self._under_way)
            for other in requests
        )


def _namespace(req: Any) -> tuple[Any, ...]:
    """What two requests must have in common to share a prefix, beside its tokens."""
    return req.extra_key, req.cache_salt, req.lora_id
