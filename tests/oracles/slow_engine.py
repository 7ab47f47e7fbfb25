"""A slow, obvious engine: the oracle of the simulated one.

The scheduling and caching rules of vLLM 0.32 (vllm/v1/core) with real block objects: a block is an
integer, its content is the tuple of all tokens up to its end, and every block that holds a content
is kept. Checked step by step against recordings of the real engine in ``test_vllm_recordings.py``.

With asynchronous scheduling, the output of a step is taken in after the next one was scheduled: a
token that is under way is a placeholder until then.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


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


class BlockPool:
    """Free blocks without content first, then those with content, least recently freed first."""

    def __init__(self, blocks: int) -> None:
        self.unhashed = blocks
        self.free_cached: OrderedDict[int, None] = OrderedDict()
        self.blocks_of: dict[Hashable, OrderedDict[int, None]] = {}
        self.content_of: dict[int, Hashable] = {}
        self.references: dict[int, int] = {}
        self.handed_out = 0

    def free(self) -> int:
        return self.unhashed + len(self.free_cached)

    def take(self) -> int:
        if self.unhashed:
            self.unhashed -= 1
        else:
            oldest, _ = self.free_cached.popitem(last=False)
            content = self.content_of.pop(oldest)
            del self.blocks_of[content][oldest]
        self.handed_out += 1
        self.references[self.handed_out] = 1
        return self.handed_out

    def find(self, content: Hashable) -> int | None:
        return next(iter(self.blocks_of.get(content, ())), None)

    def hold(self, block: int) -> None:
        if self.references[block] == 0:
            del self.free_cached[block]
        self.references[block] += 1

    def fill(self, block: int, content: Hashable) -> None:
        if block not in self.content_of:
            self.content_of[block] = content
            self.blocks_of.setdefault(content, OrderedDict())[block] = None

    def release(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self.references[block] -= 1
            if self.references[block] == 0:
                if block in self.content_of:
                    self.free_cached[block] = None
                else:
                    self.unhashed += 1


class SlowEngine:
    """Runs requests step by step; `steps` holds what happened."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        output_tokens: Sequence[int],
        *,
        blocks: int,
        block_size: int,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        policy: SlowPolicy | None = None,
        async_scheduling: bool = False,
    ) -> None:
        n = len(prompts)
        self.prompts = [tuple(map(int, prompt)) for prompt in prompts]
        self.output_tokens = output_tokens
        self.block_size = block_size
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_num_seqs = max_num_seqs
        self.policy = policy or InputOrder(n, max_num_batched_tokens)
        self.blocks = blocks
        self.pool = BlockPool(blocks)
        self.async_scheduling = async_scheduling
        self.generated = [0] * n
        self.placeholders = [0] * n
        self.under_way: list[int] = []
        self.computed = [0] * n
        self.held: list[list[int]] = [[] for _ in range(n)]
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

    def content(self, request: int, block: int) -> Hashable:
        prompt = self.prompts[request]
        end = (block + 1) * self.block_size
        return prompt[:end] if end <= len(prompt) else ("generated", request, block)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def step(self) -> Step:
        step = Step()
        tokens_left = self.max_num_batched_tokens
        used_tokens = float(self.block_size * (self.blocks - self.pool.free()))
        budget = self.policy.begin_step(len(self.running), used_tokens)
        in_prefill = sum(not self._decodes(request) for request in self.running)
        assert in_prefill <= 1
        skipped = sum(map(self.last_is_under_way, self.running))
        prefill_left = min(budget + in_prefill + skipped, tokens_left)
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
            if new == 0:
                position += 1
                continue
            need = max(0, self.blocks_for(before + new) - len(self.held[request]))
            while need > self.pool.free():
                no_room = True
                victim = self.running.pop()
                self.pool.release(self.held[victim])
                self.held[victim] = []
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
            hits = self._hits(request)
            free_hits = sum(self.pool.references[block] == 0 for block in hits)
            need = self.blocks_for(self.known(request)) - len(hits) + free_hits
            if need > self.pool.free():
                break
            for block in hits:
                self.pool.hold(block)
            self.held[request] = hits
            before = len(hits) * self.block_size
            new = min(self.known(request) - before, tokens_left, prefill_left)
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
        step.free_blocks = self.pool.free()
        if step.scheduled:
            self.steps.append(step)
        self.preemptions += len(step.preempted)
        last, self.under_way = (
            self.under_way,
            [request for request, _ in step.scheduled if self._is_whole(request)],
        )
        for request in self.under_way:
            self.placeholders[request] += 1
        self._take_output(last if self.async_scheduling else self.under_way)
        return step

    def _decodes(self, request: int) -> bool:
        under_way = self.placeholders[request]
        left = self.known(request) + under_way - self.computed[request]
        return left == 1 and self.generated[request] + under_way > 0

    def _hits(self, request: int) -> list[int]:
        hits = []
        for block in range((self.known(request) - 1) // self.block_size):
            found = self.pool.find(self.content(request, block))
            if found is None:
                break
            hits.append(found)
        return hits

    def _serve(self, step: Step, request: int, before: int, new: int, decoding: bool) -> None:
        held = self.held[request]
        while len(held) < self.blocks_for(before + new):
            held.append(self.pool.take())
        for block in range(min(before + new, self.known(request)) // self.block_size):
            self.pool.fill(held[block], self.content(request, block))
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
            held = self.held[request]
            if held:
                cached = self.computed[request] - self.placeholders[request]
                for block in range(cached // self.block_size):
                    self.pool.fill(held[block], self.content(request, block))
            if self.generated[request] == self.output_tokens[request]:
                if request in self.running:
                    self.pool.release(held)
                    self.running.remove(request)
                self.finished += 1
                self.policy.finished(request)
