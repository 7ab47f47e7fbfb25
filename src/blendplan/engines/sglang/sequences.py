"""`Sequences`: the requests in SGLang's scheduler, as a plan's policy knows them."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.protocol import Ended
from blendplan.engines.sglang.rows import Rows, Sequence

# Warm-ups of requests with several answers whose answers have not begun, at most: the prompts lie
# in the prefix cache meanwhile.
_MOST_WARMED_UP = 4


class Sequences:
    """What waits and what runs.

    Args:
        admission: the policy; told what becomes of each.
        rows: which row of the plan a request is.
    """

    def __init__(self, admission: PlannedAdmission, rows: Rows) -> None:
        self._admission = admission
        self._rows = rows
        self._generated = np.zeros(len(admission.plan), dtype=np.int32)
        self._known: dict[str, Sequence] = {}
        self._waiting: dict[int, Any] = {}
        self._warm_ups: dict[int, Any] = {}
        # By row of the first answer, prompt tokens that the prefix cache held.
        self._warmed_up: dict[int, int] = {}
        self._retracted: deque[Any] = deque()

    def chosen(self) -> Any:
        """The policy's choice; what lost its KV cache comes before it."""
        if self._retracted:
            return self._retracted[0]
        row = self._admission.next_row()
        if row >= 0:
            request = self._waiting.get(row)
            if request is None:
                # Its prompt goes first; its answers come when that is done.
                request = self._warm_ups.get(row)
            if request is not None:
                return request
        if self._warm_ups and len(self._warmed_up) < _MOST_WARMED_UP:
            return next(iter(self._warm_ups.values()))
        return None

    def came(self, request: Any) -> None:
        """A request waits from now on, for the first time or again."""
        known = self._known.get(request.rid)
        if known is None:
            known = self._known[request.rid] = self._rows.arrived(request)
            (self._warm_ups if known.warm_up else self._waiting)[known.row] = request
            return
        known.waits = True
        known.preemptions += 1
        self._retracted.appendleft(request)
        if not known.warm_up:
            self._admission.preempted(known.row)

    def began(self, request: Any) -> None:
        """A request was given room."""
        known = self._known.get(request.rid)
        if known is None or not known.waits:
            return
        known.waits = False
        if self._retracted and self._retracted[0] is request:
            self._retracted.popleft()
        if known.warm_up:
            self._warm_ups.pop(known.row, None)
            self._warmed_up[known.row] = int(request.prefix_len)
        elif known.begun:
            self._admission.resumed(known.row)
        else:
            known.begun = True
            # What a warm-up computed, it computed for the first answer.
            known.cached_tokens = self._warmed_up.pop(known.row, int(request.prefix_len))
            self._waiting.pop(known.row, None)
            self._admission.began(known.row)

    def left(self, request: Any) -> None:
        """A request is done, for whatever reason."""
        known = self._known.pop(request.rid, None)
        if known is None:
            return
        self._rows.left(known)
        if request in self._retracted:
            self._retracted.remove(request)
        if known.warm_up:
            self._warm_ups.pop(known.row, None)
            if request.to_finish is not None:  # aborted
                self._warmed_up.pop(known.row, None)
            return
        self._waiting.pop(known.row, None)
        tokens = len(request.output_ids)
        if known.row < len(self._generated):
            self._generated[known.row] = tokens
        self._admission.ended(Ended(known.row, known.cached_tokens, known.preemptions), tokens)

    def generated_tokens(self) -> NDArray[np.int32]:
        """Output tokens of each row of the plan so far; int32 [n]."""
        generated = self._generated.copy()
        for known in self._known.values():
            if not known.warm_up and known.row < len(generated):
                generated[known.row] = len(known.request.output_ids)
        return generated
