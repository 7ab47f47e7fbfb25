"""The paper's two scanners in plain Python: the oracle of the compiled state machine.

Written from sections 5.3 and algorithm 3 of the paper and DESIGN 8: the two current requests solve
M_L + M_R = M and M_L rho_L + M_R rho_R = M rho_root; a side of M tokens holds N = M / (p + d/2)
requests and needs C = N p / d prefill tokens per step to stay full.
"""

import math
from collections import deque
from collections.abc import Sequence

LEFT, RIGHT = "compute", "memory"


class SlowScanners:
    """Admits from both ends of ``order``; requests are integers.

    A side admits while its requests fit its share of memory and it has prefill credit; an empty
    side takes any size. Credit grows by C per step, up to one request's prompt or one step's C.
    Where both sides have room, the one that is less full goes first. An idle engine always gets a
    request.
    """

    def __init__(
        self,
        order: Sequence[int],
        *,
        prompt: Sequence[float],
        output: Sequence[float],
        density: Sequence[float],
        root_density: float,
        kv_tokens: float,
        max_num_batched_tokens: int,
    ) -> None:
        self.waiting = deque(order)
        self.prompt = prompt
        self.output = output
        self.density = density
        self.root_density = root_density
        self.kv_tokens = kv_tokens
        self.max_num_batched_tokens = max_num_batched_tokens
        self.holds: dict[str, list[int]] = {LEFT: [], RIGHT: []}
        self.share = {LEFT: kv_tokens, RIGHT: 0.0}
        self.credit = {LEFT: 0.0, RIGHT: 0.0}
        self.side_of: dict[int, str] = {}

    def ends(self) -> dict[str, int]:
        return {LEFT: self.waiting[0], RIGHT: self.waiting[-1]}

    def size(self, request: int) -> float:
        return self.prompt[request] + self.output[request] / 2

    def used(self, side: str) -> float:
        return sum(self.size(request) for request in self.holds[side])

    def partition(self) -> dict[str, float]:
        left, right = (self.density[request] for request in self.ends().values())
        m = self.kv_tokens
        if left == right:
            return {LEFT: m / 2, RIGHT: m / 2}
        part = (self.root_density - right) / (left - right)
        m_left = m * min(1.0, max(0.0, part))
        return {LEFT: m_left, RIGHT: m - m_left}

    def begin_step(self, running: int, used_tokens: float) -> int:
        if not self.waiting:
            return self.max_num_batched_tokens
        self.share = self.partition()
        total = 0.0
        for side, request in self.ends().items():
            p, d = self.prompt[request], self.output[request]
            n = self.share[side] / (p + d / 2)
            c = n * p / d
            self.credit[side] = min(self.credit[side] + c, max(c, p))
            total += c
        if running == 0:
            return self.max_num_batched_tokens
        return min(self.max_num_batched_tokens, max(1, math.ceil(total)))

    def has_room(self, side: str) -> bool:
        if self.credit[side] <= 0:
            return False
        after = self.used(side) + self.size(self.ends()[side])
        return not self.holds[side] or after <= self.share[side]

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
            else:
                assert self.waiting.pop() == request
            self.credit[side] -= self.prompt[request]
        self.holds[side].append(request)

    def preempted(self, request: int) -> None:
        self.holds[self.side_of[request]].remove(request)

    def finished(self, request: int) -> None:
        self.holds[self.side_of[request]].remove(request)
