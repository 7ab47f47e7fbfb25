"""`Rows`: which row of a plan a request of vLLM is.

vLLM names a request by what its server makes of the client's ``X-Request-Id``
(vllm/entrypoints/openai: ``chatcmpl-<id>``, ``cmpl-<id>-<prompt>``), or by what a library user
chose, each followed by a random suffix (vllm/v1/engine/input_processor.py, `assign_request_id`).
The sequences of a request with several answers are ``<answer>_<name>``
(vllm/v1/engine/parallel_sampling.py).
"""

import re

from vllm.v1.request import Request

from blendplan.engines.front import REQUEST_ID
from blendplan.engines.link import Admission
from blendplan.engines.plan_requests import PlanRequests

_NAME = re.compile(r"(?:(?P<answer>\d+)_)?(?P<name>.*?)(?:-[0-9a-f]{8})?", re.DOTALL)
_OURS = re.compile(r"(?:\w+-)*" + REQUEST_ID.format(row=r"(\d+)") + r"(?:-(\d+))?")
_PREFIX = re.compile(r"[a-z]+-")
_PROMPT = re.compile(r"-\d+\Z")


class Rows:
    """Rows of a plan by request.

    Args:
        admission: of the plan; told what has come.
        replayed: whether requests bear the names that a replay gives them; else they are found by
            their id in the request file or, if they bring none, by their prompt tokens.
    """

    def __init__(self, admission: Admission, *, replayed: bool) -> None:
        self._admission = admission
        self._replayed = replayed
        self._rows: dict[str, int] = {}
        self._requests = None if replayed else PlanRequests(admission.plan)
        self._parents: dict[str, int] = {}
        self.taken: set[int] = set()

    def of(self, request: Request) -> int:
        """The row of a request, which is new to the policy the first time."""
        row = self._rows.get(request.request_id)
        if row is None:
            found = self._find(request)
            if found < 0 or found in self.taken:
                row = self._admission.stranger()
            else:
                row = found
                self.taken.add(row)
                self._admission.arrived(row, int(request.num_prompt_tokens))
            self._rows[request.request_id] = row
        return row

    def forget(self, request: Request) -> int:
        """The row of a request that is done."""
        row = self._rows.pop(request.request_id, -1)
        if self._replayed:
            self.taken.discard(row)  # it may be tried again
        return row

    def _find(self, request: Request) -> int:
        named = _NAME.fullmatch(request.request_id)
        assert named is not None
        answer, name = int(named["answer"] or 0), named["name"]
        if self._requests is None:
            ours = _OURS.fullmatch(name)
            return -1 if ours is None or int(ours[2] or 0) else self._sequence(int(ours[1]), answer)
        names = [name, _PREFIX.sub("", name, count=1)]
        first = self._requests.by_id(names + [_PROMPT.sub("", known) for known in names])
        return self._of_prompt(request, answer) if first < 0 else self._sequence(first, answer)

    def _of_prompt(self, request: Request, answer: int) -> int:
        assert self._requests is not None
        if request.prompt_token_ids is None:
            return -1
        # The answers of a request are named after it, and the first one comes first.
        parent = request.request_id.split("_", 1)[-1]
        if answer > 0:
            return self._sequence(self._parents[parent], answer) if parent in self._parents else -1
        first = self._requests.by_prompt(request.prompt_token_ids)
        if first >= 0:
            self._requests.came(request.prompt_token_ids)
            if len(self._admission.rows_of(first)) > 1:
                self._parents[parent] = first
        return first

    def _sequence(self, first: int, answer: int) -> int:
        rows = self._admission.rows_of(first)
        return first + answer if answer < len(rows) else -1
