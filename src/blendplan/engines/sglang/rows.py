"""`Rows`: which row of a plan a request of SGLang's scheduler is.

A request with several answers comes in n + 1 parts (`_handle_batch_request` in
managers/tokenizer_manager.py): a warm-up that generates nothing and leaves its prompt in the prefix
cache, and, when that is done, the n sequences.
"""

import re
from dataclasses import dataclass
from typing import Any

from blendplan.engines.front import REQUEST_ID
from blendplan.engines.plan_requests import PlanRequests
from blendplan.engines.planned import PlannedAdmission

_OURS = re.compile(REQUEST_ID.format(row=r"(\d+)") + r"(?:-|\Z)")


@dataclass
class Sequence:
    """A sequence, or a warm-up, that is in the scheduler.

    Attributes:
        request: SGLang's `Req`.
        row: of the plan, or of a stranger; of a warm-up that of the first answer.
        warm_up: whether it is one.
        waits: whether it has no KV cache.
        begun: whether it had some before.
        cached_tokens: prompt tokens that the prefix cache held when it first came in.
        preemptions: how often it lost its KV cache.
    """

    request: Any
    row: int
    warm_up: bool = False
    waits: bool = True
    begun: bool = False
    cached_tokens: int = 0
    preemptions: int = 0


class Rows:
    """Rows of a plan by request.

    Args:
        admission: of the plan; told what has come.
        replayed: whether requests bear the names that a replay gives them; else they are found by
            their id in the request file or, if they bring none, by their prompt tokens.
    """

    def __init__(self, admission: PlannedAdmission, *, replayed: bool) -> None:
        self._admission = admission
        self._replayed = replayed
        self._known = None if replayed else PlanRequests(admission.plan)
        self._taken: set[int] = set()
        # Of requests with several answers that are coming in: the next answer.
        self._coming: dict[int, int] = {}

    def arrived(self, request: Any) -> Sequence:
        """A request has come, which the policy is told."""
        first, by_prompt = self._find(request)
        answers = self._admission.rows_of(first) if first >= 0 else range(0)
        if len(answers) > 1 and first not in self._coming:
            self._coming[first] = 0
            if request.sampling_params.max_new_tokens == 0:
                self._admission.arrived(first, len(request.origin_input_ids))
                return Sequence(request, first, warm_up=True)
        row = first + self._coming.get(first, 0)
        if first < 0 or row in self._taken:
            return Sequence(request, self._admission.stranger())
        if len(answers) > 1:
            self._coming[first] += 1
        if row == answers[-1]:
            self._coming.pop(first, None)
            if by_prompt and self._known is not None:
                self._known.came(request.origin_input_ids)
        self._taken.add(row)
        self._admission.arrived(row, len(request.origin_input_ids))
        return Sequence(request, row)

    def left(self, sequence: Sequence) -> None:
        """A sequence is done; in a replay it may be tried again."""
        if self._replayed and not sequence.warm_up:
            self._taken.discard(sequence.row)

    def _find(self, request: Any) -> tuple[int, bool]:
        """The row of the first answer, -1 for a stranger, and whether its prompt told."""
        named = (request.routing_key, request.rid)
        if self._known is None:
            for name in named:
                ours = _OURS.match(name or "")
                if ours is not None and int(ours[1]) < len(self._admission.plan):
                    return int(ours[1]), False
            return -1, False
        found = self._known.by_id(named)
        if found >= 0:
            return found, False
        return self._known.by_prompt(request.origin_input_ids), True
