"""A slow, obvious engine: the oracle of the simulated one.

The scheduling rules of vLLM 0.32 (vllm/v1/core/sched), above the KV cache of `slow_kv`. Checked
step by step against recordings of the real engine in ``test_vllm_recordings.py``.

With asynchronous scheduling, the output of a step is taken in after the next one was scheduled: a
token that is under way is a placeholder until then.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from blendplan.hardware.kv_layout import KvGroup, KvLayout
from tests.oracles.slow_kv import SlowKv


class SlowPolicy(Protocol):
    """What the slow engine asks of a policy; requests are integers."""

    def begin_step(self, running: int, used_tokens: float) -> int: ...
    def next_request(self, running: int) -> int: ...
    def admitted(self, request: int) -> None: ...
    def preempted(self, request: int) -> None: ...
    def finished(self, request: int) -> None: ...


class InputOrder:
    """Requests in input order, as fast as the engine takes them."""

    def __init__(self, requests: int, max_num_batched_tokens: int) -> None:
        self.waiting = deque(range(requests))
        self.tokens = max_num_batched_tokens

    def begin_step(self, running: int, used_tokens: float) -> int:
        return self.tokens

    def next_request(self, running: int) -> int:
        return self.waiting[0] if self.waiting else -1

    def admitted(self, request: int) -> None:
        if self.waiting and self.waiting[0] == request:
            self.waiting.popleft()

    def preempted(self, request: int) -> None:
        pass

    def finished(self, request: int) -> None:
        pass


@dataclass
class Step:
    """What one step did; requests in the order in which they were served.

    Those ``spent`` lost their blocks when their last token was under way.
    """

    scheduled: list[tuple[int, int]] = field(default_factory=list)
    admitted: list[tuple[int, int]] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    free_blocks: int = 0
    prefill_tokens: int = 0
    decodes: int = 0
    sampling: int = 0
    # How many tokens there are up to each prompt token that is computed and each that is decoded.
    prefill_contexts: list[int] = field(default_factory=list)
    decode_contexts: list[int] = field(default_factory=list)


class SlowEngine:
    """Runs requests step by step; `steps` holds what happened."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        output_tokens: Sequence[int],
        *,
        blocks: int,
        block_size: int = 16,
        layout: KvLayout | None = None,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        policy: SlowPolicy | None = None,
        async_scheduling: bool = False,
    ) -> None:
        n = len(prompts)
        self.prompts = [tuple(map(int, prompt)) for prompt in prompts]
        self.output_tokens = output_tokens
        # Without a layout, every layer keeps all tokens.
        layout = layout or KvLayout((KvGroup("full", 1, 0, block_size, 1),))
        self.block_tokens = layout.block_tokens
        self.least_prefill = min(self.block_tokens, max_num_batched_tokens)
        self.least_prefill *= layout.has_states
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_num_seqs = max_num_seqs
        self.policy = policy or InputOrder(n, max_num_batched_tokens)
        self.blocks = blocks
        self.kv = SlowKv(layout, blocks, self)
        self.async_scheduling = async_scheduling
        self.generated = [0] * n
        self.placeholders = [0] * n
        self.under_way: list[int] = []
        self.computed = [0] * n
        self.in_flight: dict[int, int] = {}
        self.running: list[int] = []
        self.waiting_again: deque[int] = deque()
        self.finished = 0
        self.preemptions = 0
        self.cached_tokens: dict[int, int] = {}
        self.steps: list[Step] = []

    def run(self) -> list[Step]:
        while self.finished < len(self.prompts):
            self.step()
        return self.steps

    def known(self, request: int) -> int:
        return len(self.prompts[request]) + self.generated[request]

    def last_is_under_way(self, request: int) -> bool:
        generated = self.generated[request] + self.placeholders[request]
        return self.placeholders[request] > 0 and generated == self.output_tokens[request]

    def prompt_tokens(self, request: int) -> int:
        return len(self.prompts[request])

    def content(self, request: int, end: int) -> Hashable:
        """What a block that ends after so many tokens holds: all tokens up to there."""
        prompt = self.prompts[request]
        return prompt[:end] if end <= len(prompt) else ("generated", request, end)

    def step(self) -> Step:
        step = Step()
        tokens_left = self.max_num_batched_tokens
        used_tokens = float(self.block_tokens * (self.blocks - self.kv.pool.free()))
        budget = self.policy.begin_step(len(self.running), used_tokens)
        # A chunk of fewer tokens might end where no state is kept, and never begin.
        budget = max(budget, self.least_prefill)
        self.kv.new_step()
        in_prefill = sum(not self._decodes(request) for request in self.running)
        assert in_prefill <= 1 or self.kv.layout.has_states
        skipped = sum(map(self.last_is_under_way, self.running))
        prefill_left = min(budget + in_prefill + skipped, tokens_left)
        largest = min(len(self.running) + budget, self.max_num_batched_tokens)
        position = 0
        no_room = False
        while position < len(self.running) and tokens_left > 0:
            request = self.running[position]
            if self.last_is_under_way(request):
                position += 1
                continue
            before = self.computed[request]
            new = self.known(request) + self.placeholders[request] - before
            decoding = self._decodes(request)
            new = min(new, tokens_left) if decoding else min(new, tokens_left, prefill_left)
            new = self.kv.chunk(request, self.known(request), before, new, largest)
            if new == 0:
                position += 1
                continue
            while not self._make_room(request, before, new):
                no_room = True
                victim = self.running.pop()
                self.kv.release(victim)
                self.computed[victim] = 0
                if self.last_is_under_way(victim):
                    step.spent.append(victim)
                else:
                    self.waiting_again.appendleft(victim)
                    self.policy.preempted(victim)
                    step.preempted.append(victim)
                if victim == request:
                    break
            if request in step.preempted:
                break
            self._serve(step, request, before, new, decoding)
            tokens_left -= new
            prefill_left -= 0 if decoding else new
            position += 1
        while (
            not no_room
            and tokens_left > 0
            and prefill_left > 0
            and len(self.running) < self.max_num_seqs
        ):
            again = bool(self.waiting_again)
            request = (
                self.waiting_again[0] if again else self.policy.next_request(len(self.running))
            )
            if request < 0:
                break
            known = self.known(request)
            before, hits = self.kv.look_up(request, known)
            new = min(known - before, tokens_left, prefill_left)
            new = self.kv.chunk(request, known, before, new, largest)
            if new == 0 or not self.kv.allocate(request, known, before, new, hits=hits):
                break
            if again:
                self.waiting_again.popleft()
            else:
                self.cached_tokens[request] = before
            self.policy.admitted(request)
            step.admitted.append((request, before))
            self.running.append(request)
            self._serve(step, request, before, new, False)
            tokens_left -= new
            prefill_left -= new
        step.running = list(self.running)
        step.free_blocks = self.kv.pool.free()
        if step.scheduled:
            self.steps.append(step)
        self.preemptions += len(step.preempted)
        last, self.under_way = (
            self.under_way,
            [request for request, _ in step.scheduled if self._is_whole(request)],
        )
        for request in self.under_way:
            self.placeholders[request] += 1
        self.in_flight = dict(step.scheduled) if self.async_scheduling else {}
        self._take_output(last if self.async_scheduling else self.under_way)
        return step

    def _decodes(self, request: int) -> bool:
        under_way = self.placeholders[request]
        left = self.known(request) + under_way - self.computed[request]
        return left == 1 and self.generated[request] + under_way > 0

    def _make_room(self, request: int, before: int, new: int) -> bool:
        in_flight = self.in_flight.get(request, 0)
        return self.kv.allocate(request, self.known(request), before, new, in_flight=in_flight)

    def _serve(self, step: Step, request: int, before: int, new: int, decoding: bool) -> None:
        self.computed[request] = before + new
        step.scheduled.append((request, new))
        step.sampling += self._is_whole(request)
        if decoding:
            step.decodes += 1
            step.decode_contexts.append(before + new)
        else:
            step.prefill_tokens += new
            step.prefill_contexts += range(before + 1, before + new + 1)

    def _is_whole(self, request: int) -> bool:
        return self.computed[request] == self.known(request) + self.placeholders[request]

    def _take_output(self, sampled: Sequence[int]) -> None:
        for request in sampled:
            self.placeholders[request] -= 1
            self.generated[request] += 1
            if request in self.running:
                self.kv.fill(request, self.computed[request] - self.placeholders[request])
            if self.generated[request] == self.output_tokens[request]:
                if request in self.running:
                    self.kv.release(request)
                    self.running.remove(request)
                self.finished += 1
                self.policy.finished(request)
