"""The paper's two scanners in plain Python: the oracle of the compiled state machine.

Written from sections 5.3 and algorithm 3 of the paper and DESIGN 8: the two current requests solve
M_L + M_R = M and M_L rho_L + M_R rho_R = M rho; a side of M tokens holds N = M / (p + d/2) requests
and needs C = N p / d prefill tokens per step to stay full. Where the paper says nothing: what
`blendplan.policy.paper_scanners` says.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

LEFT, RIGHT = "compute", "memory"


class SlowScanners:
    """Admits from both ends of ``order``; requests are integers.

    ``slots`` is what each holds on average, p + d/2 where a token of its context is a slot.
    A side admits while its requests fit its share of memory, all fit the memory, and the side is
    less than half full or has credit; an empty side takes any size. Credit grows by the side's
    share per step, up to one request's (p + d/2) d or one step's share; a request that is admitted
    to a side at least half full costs its (p + d/2) d. Where both sides have room, the one that is
    less full goes first. An idle engine always gets a request.
    """

    def __init__(
        self,
        order: Sequence[int],
        *,
        prompt: Sequence[float],
        slots: Sequence[float],
        output: Sequence[float],
        density: Sequence[float],
        reads: Sequence[float],
        root_density: float,
        kv_tokens: float,
        least_tokens: int,
        max_num_batched_tokens: int,
    ) -> None:
        self.waiting = deque(order)
        self.prompt = prompt
        self.slots = slots
        self.output = output
        self.density = density
        self.kv_tokens = kv_tokens
        self.least_tokens = least_tokens
        self.max_num_batched_tokens = max_num_batched_tokens
        self.holds: dict[str, list[int]] = {LEFT: [], RIGHT: []}
        self.share = {LEFT: kv_tokens, RIGHT: 0.0}
        self.credit = {LEFT: 0.0, RIGHT: 0.0}
        self.side_of: dict[int, str] = {}
        self.compute = [0.0, *accumulate(density[request] * reads[request] for request in order)]
        self.memory = [0.0, *accumulate(reads[request] for request in order)]
        scale = root_density * self.memory[-1] / self.compute[-1]
        self.compute = [work * scale for work in self.compute]
        self.from_left = 0

    def density_of_waiting(self) -> float:
        first, end = self.from_left, self.from_left + len(self.waiting)
        compute = self.compute[end] - self.compute[first]
        return compute / (self.memory[end] - self.memory[first])

    def ends(self) -> dict[str, int]:
        return {LEFT: self.waiting[0], RIGHT: self.waiting[-1]}

    def size(self, request: int) -> float:
        return self.slots[request]

    def used(self, side: str) -> float:
        return sum(self.size(request) for request in self.holds[side])

    def partition(self) -> dict[str, float]:
        left, right = (self.density[request] for request in self.ends().values())
        target, m = self.density_of_waiting(), self.kv_tokens
        if left == right or min(left, right) > target or max(left, right) < target:
            free = max(0.0, m - self.used(LEFT) - self.used(RIGHT))
            return {side: self.used(side) + free for side in (LEFT, RIGHT)}
        part = (target - right) / (left - right)
        m_left = m * min(1.0, max(0.0, part))
        return {LEFT: m_left, RIGHT: m - m_left}

    def begin_step(self, running: int, used_tokens: float) -> int:
        if not self.waiting:
            return self.max_num_batched_tokens
        self.share = self.partition()
        total = 0.0
        for side, request in self.ends().items():
            share = self.share[side]
            cost = self.size(request) * self.output[request]
            self.credit[side] = min(self.credit[side] + share, max(share, cost))
            # N requests like those that run, or else like the next one
            alike = self.holds[side] or [request]
            per_step = sum(self.prompt[one] / self.output[one] for one in alike)
            total += per_step * share / sum(self.size(one) for one in alike)
        if running == 0 or used_tokens < self.kv_tokens / 4:
            return self.max_num_batched_tokens
        total = max(total, self.least_tokens - running)
        return min(self.max_num_batched_tokens, max(1, math.ceil(total - 1e-6)))

    def fills(self, side: str) -> bool:
        return self.used(side) < self.share[side] / 2

    def has_room(self, side: str) -> bool:
        if self.credit[side] <= 0 and not self.fills(side):
            return False
        if not self.holds[side]:
            return True
        size = self.size(self.ends()[side])
        everything = self.used(LEFT) + self.used(RIGHT) + size
        return self.used(side) + size <= self.share[side] and everything <= self.kv_tokens

    def next_request(self, running: int) -> int:
        if not self.waiting:
            return -1
        open_sides = [side for side in (LEFT, RIGHT) if self.has_room(side)]
        if not open_sides:
            if running > 0:
                return -1
            open_sides = [LEFT]
        side = open_sides[0]
        if len(open_sides) == 2:
            # used / share of the right side is at most that of the left side
            right_first = self.used(RIGHT) * self.share[LEFT] <= self.used(LEFT) * self.share[RIGHT]
            side = RIGHT if right_first else LEFT
        request = self.ends()[side]
        self.side_of[request] = side
        return request

    def admitted(self, request: int) -> None:
        side = self.side_of[request]
        if request in self.waiting:
            if side == LEFT:
                assert self.waiting.popleft() == request
                self.from_left += 1
            else:
                assert self.waiting.pop() == request
            if not self.fills(side):
                self.credit[side] -= self.size(request) * self.output[request]
        self.holds[side].append(request)

    def preempted(self, request: int) -> None:
        self.holds[self.side_of[request]].remove(request)

    def finished(self, request: int) -> None:
        self.holds[self.side_of[request]].remove(request)
