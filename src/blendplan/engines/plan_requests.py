"""`PlanRequests`: the requests of a plan, found by what a server knows of a request.

For requests that somebody else sends to an engine that follows a plan.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from blendplan.planfile.plan import Plan


class PlanRequests:
    """Rows of first answers, by id and by prompt.

    Args:
        plan: for one replica.
    """

    def __init__(self, plan: Plan) -> None:
        firsts = np.flatnonzero(plan.column("answer") == 0)
        ids = plan.table.column("request_id").take(firsts).to_pylist()
        self._by_id = dict(zip(ids, firsts.tolist(), strict=True))
        self._by_prompt: dict[bytes, deque[int]] = {}
        prompts = plan.table.column("prompt_token_ids")
        for first in firsts.tolist():
            tokens = prompts[first]
            if tokens.is_valid:
                key = _key(tokens.values.to_numpy())
                self._by_prompt.setdefault(key, deque()).append(first)

    def by_id(self, names: Iterable[str | None]) -> int:
        """The row of the request that has one of these ids in the request file, -1 for none."""
        return next((self._by_id[name] for name in names if name in self._by_id), -1)

    def by_prompt(self, tokens: Sequence[int]) -> int:
        """The row of a request with this prompt that has not come yet, -1 for none."""
        rows = self._by_prompt.get(_key(tokens))
        return rows[0] if rows else -1

    def came(self, tokens: Sequence[int]) -> None:
        """The request that `by_prompt` finds has come; the next one with this prompt is another."""
        rows = self._by_prompt.get(_key(tokens))
        if rows:
            rows.popleft()


def _key(tokens: "Sequence[int] | np.ndarray") -> bytes:
    """What tells prompts apart, in 16 bytes."""
    return blake2b(np.asarray(tokens, dtype=np.int32).tobytes(), digest_size=16).digest()
