"""`PlannedQueue`: vLLM's queue of waiting requests, in the order in which a plan's policy asks.

vLLM's scheduler looks at the head of its queue while there is room (`Scheduler.schedule` in
vllm/v1/core/sched/scheduler.py). The head of this one is what the policy would admit next, asked
anew in each step; what vLLM itself put back, preempted or not ready yet, comes before it.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request, RequestStatus

from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.vllm.rows import Rows


class PlannedQueue(RequestQueue):  # type: ignore[misc]
    """Waiting requests of a scheduler.

    Args:
        admission: the policy.
        rows: which row of the plan a request is.
    """

    def __init__(self, admission: PlannedAdmission, rows: Rows) -> None:
        self._admission = admission
        self._rows = rows
        self._back: deque[Request] = deque()
        self._held: dict[int, Request] = {}

    def add_request(self, request: Request) -> None:
        """A request comes in."""
        self._held[self._rows.of(request)] = request

    def peek_request(self) -> Request:
        """The one to try next."""
        head = self._head()
        if head is None:
            raise IndexError("no request may be admitted")
        return head

    def pop_request(self) -> Request:
        """The one to try next, which is given room or put back at once."""
        request = self.peek_request()
        row = self._rows.of(request)
        if self._back:
            self._back.popleft()
            if request.status == RequestStatus.PREEMPTED:
                self._admission.resumed(row)
        else:
            del self._held[row]
            self._admission.began(row)
        return request

    def prepend_request(self, request: Request) -> None:
        """A preempted request comes back."""
        self._back.appendleft(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Requests come back that were not ready, the last one to the front."""
        self._back.extendleft(requests)

    def remove_request(self, request: Request) -> None:
        """A waiting request is not wanted any more."""
        self.remove_requests([request])

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Waiting requests are not wanted any more."""
        gone = {id(request) for request in requests}
        self._back = deque(request for request in self._back if id(request) not in gone)
        for row in [row for row, request in self._held.items() if id(request) in gone]:
            del self._held[row]

    def __bool__(self) -> bool:
        """Whether a request may be tried now."""
        return self._head() is not None

    def __len__(self) -> int:
        """How many wait, those that the policy holds back too."""
        return len(self._back) + len(self._held)

    def __iter__(self) -> Iterator[Request]:
        """All that wait, first those that would be tried first."""
        yield from self._back
        yield from self._held.values()

    def _head(self) -> Request | None:
        if self._back:
            return self._back[0]
        row = self._admission.next_row()
        return None if row < 0 else self._held.get(row)
