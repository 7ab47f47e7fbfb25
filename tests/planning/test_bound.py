"""The lower bound never exceeds the time of any feasible schedule, and is met by easy ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.cost.reach import Reach
from blendplan.cost.step import StepTable, step_times
from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layout import kv_layout
from blendplan.planning.bound import LeastPrefill, least_prefill, makespan_bound
from blendplan.policy.holding import GROWS_BY_ONE, Holding, holding_of
from blendplan.requests.columns import Requests
from blendplan.tree.build import build_tree
from tests.hardware.layer_lists import MODELS
from tests.oracles.layer_kinds import LAYERS, REACHES


def _requests(prompts: list[list[int]]) -> Requests:
    import pyarrow as pa

    n = len(prompts)
    none = np.full(n, -1, np.int32)
    return Requests(
        ids=pa.array([str(i) for i in range(n)], pa.large_string()),
        source_row=np.arange(n),
        token_ids=np.array([token for prompt in prompts for token in prompt], np.int32),
        offsets=np.cumsum([0, *(len(prompt) for prompt in prompts)]),
        output_tokens=none,
        max_tokens=none,
    )


def _table(seed: int, tokens: int, sequences: int, overlap: float) -> StepTable:
    """Prices with a floor, a slope and noise, so that they are neither monotone nor convex."""
    rng = np.random.default_rng(seed)
    linear_s = (
        rng.random() + rng.random() * np.arange(tokens + 1) + rng.random() * rng.random(tokens + 1)
    )
    head_s = rng.random() + rng.random() * np.arange(sequences + 1) + rng.random(sequences + 1)
    linear_s[0] = head_s[0] = 0.0
    return StepTable(
        linear_s, head_s, rng.random(3) * 0.1, rng.random(3) * 0.5, overlap, rng.random() * 0.2
    )


class _Schedule:
    """A random feasible schedule, token by token, with ideal sharing: the slow, obvious oracle.

    A prompt token is a hit if any request has computed that prefix before, in an earlier step or
    earlier in the same one; such tokens stay for ever but count as resident only while a running
    request holds them.
    """

    def __init__(
        self,
        prompts: list[list[int]],
        outputs: list[int],
        table: StepTable,
        capacity: int,
        preempting: bool,
        seed: int,
        holding: Holding = GROWS_BY_ONE,
    ) -> None:
        self.holding = holding
        self.prompts, self.outputs = prompts, outputs
        self.table, self.capacity = table, capacity
        self.preempting = preempting
        self.rng = np.random.default_rng(seed)
        self.computed: set[tuple[int, ...]] = set()
        self.done = [0] * len(prompts)  # context tokens in the KV cache
        self.sampled = [0] * len(prompts)
        self.resuming = [False] * len(prompts)
        self.running: list[int] = []
        self.preemptions = 0
        self.time_s = 0.0
        self.steps = 0

    def resident(self, running: list[int]) -> float:
        """Slots that requests need to sample: what a window or chunk has left behind is gone."""
        held = self.holding
        groups = [(held.growth, 0, False)]
        groups += [(slots, int(tokens), False) for tokens, slots in held.windows]
        groups += [(slots, int(tokens), True) for tokens, slots in held.chunks]
        total = held.constant * len(running)
        for slots, tokens, chunked in groups:
            kept: set[object] = set()
            for r in running:
                prompt, context = self.prompts[r], len(self.prompts[r]) + self.sampled[r]
                for x in range(context - seen(tokens, chunked, context), context):
                    kept.add(tuple(prompt[: x + 1]) if x < len(prompt) else (r, "generated", x))
            total += slots * len(kept)
        return total

    def run(self) -> float:
        waiting = [int(r) for r in self.rng.permutation(len(self.prompts))]
        while waiting or self.running:
            if self.preempting and len(self.running) > 1 and self.rng.random() < 0.3:
                waiting.insert(0, self._preempt(self.running[-1]))
            while self.resident(self.running) > self.capacity:
                waiting.insert(0, self._preempt(self.running[-1]))
            while (
                waiting
                and len(self.running) < len(self.table.head_s) - 1
                and self.resident([*self.running, waiting[0]]) <= self.capacity
                and (not self.running or self.rng.random() < 0.7)
            ):
                self.running.append(waiting.pop(0))
            self._step()
        return self.time_s

    def _preempt(self, request: int) -> int:
        self.running.remove(request)
        self.done[request] = 0
        self.resuming[request] = self.sampled[request] > 0
        self.preemptions += 1
        return request

    def _step(self) -> None:
        budget = len(self.table.linear_s) - 1
        prefill = decodes = sampling = 0
        pairs = kv = 0.0
        for r in list(self.running):
            prompt = self.prompts[r]
            target = len(prompt) + self.sampled[r]
            if not self.resuming[r] and self.sampled[r]:
                if budget == 0:
                    continue
                budget -= 1
                decodes += 1
                kv += mean_seen(self.table.reach, self.table.reach.read_share, target)
                self.done[r] = target
            else:
                if self.done[r] == 0:
                    while (
                        self.done[r] < len(prompt)
                        and tuple(prompt[: self.done[r] + 1]) in self.computed
                    ):
                        self.done[r] += 1
                    self.done[r] = min(self.done[r], target - 1)
                new = min(budget, target - self.done[r], int(self.rng.integers(1, 6)))
                budget -= new
                for position in range(self.done[r] + 1, self.done[r] + new + 1):
                    prefill += 1
                    pairs += mean_seen(self.table.reach, self.table.reach.pair_share, position)
                    if position <= len(prompt):
                        self.computed.add(tuple(prompt[:position]))
                self.done[r] += new
                if self.done[r] < target or new == 0:
                    continue
                self.resuming[r] = False
            sampling += 1
            self.sampled[r] += 1
            if self.sampled[r] == self.outputs[r]:
                self.running.remove(r)
        if prefill + decodes:
            self.time_s += step_times(self.table, prefill, pairs, decodes, kv, sampling)[2]
            self.steps += 1


def seen(tokens: int, chunked: bool, context: int) -> int:
    """Tokens of a context that its last one looks at, counted one by one."""
    start = (context - 1) // tokens * tokens if chunked else max(0, context - (tokens or context))
    return sum(x >= start for x in range(context))


def mean_seen(reach: Reach, shares: NDArray[np.float64], context: int) -> float:
    """The same of all kinds of layers, by their shares."""
    kinds = zip(reach.tokens.tolist(), reach.chunked.tolist(), shares.tolist(), strict=True)
    return sum(share * seen(tokens, chunked, context) for tokens, chunked, share in kinds)


PROMPT = st.lists(st.integers(0, 1), min_size=1, max_size=8)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(PROMPT, st.integers(1, 9)), min_size=1, max_size=8),
    st.sampled_from([1.0, 1.3, 2.0, 5.0, np.inf]),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 30),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.sampled_from(LAYERS),
)
def test_no_schedule_beats_the_bound(
    requests: list[tuple[list[int], int]],
    overlap: float,
    tokens: int,
    sequences: int,
    spare: int,
    preempting: bool,
    seed: int,
    layers: tuple[Reach, Holding, float],
) -> None:
    prompts, outputs = [prompt for prompt, _ in requests], [output for _, output in requests]
    sequences = min(sequences, tokens)
    reach, holding, state_s = layers
    table = _table(seed, tokens, sequences, overlap)._replace(reach=reach, state_s=state_s)
    # A chunk is fullest just before the next one begins.
    fullest = max(
        sum(slots * min(len(p) + d, tokens) for tokens, slots in holding.chunks)
        + holding._replace(chunks=()).held(len(p) + d)
        for p, d in requests
    )
    capacity = int(fullest) + 1 + spare
    schedule = _Schedule(prompts, outputs, table, capacity, preempting, seed, holding)
    time_s = schedule.run()
    bound = makespan_bound(
        table,
        prompt_tokens=[len(prompt) for prompt in prompts],
        output_tokens=outputs,
        prefill=least_prefill(build_tree(_requests(prompts)), reach),
        kv_capacity_tokens=capacity,
        preemptions=schedule.preemptions,
        holding=holding,
    )
    assert bound.steps <= schedule.steps
    assert bound.makespan_s <= time_s * (1 + 1e-9)


def _affine(overlap: float = 1.0) -> StepTable:
    return StepTable(
        linear_s=np.where(np.arange(65) > 0, 1.0 + 0.25 * np.arange(65), 0.0),
        head_s=np.where(np.arange(9) > 0, 0.5, 0.0),
        prefill_attention=np.array([0.01, 0.02, 0.3]),
        decode_attention=np.array([0.001, 0.05, 0.07]),
        overlap=overlap,
        step_s=0.125,
    )


@pytest.mark.parametrize(("reach", "holding", "state_s"), LAYERS)
def test_a_single_request_meets_the_bound(reach: Reach, holding: Holding, state_s: float) -> None:
    """Affine prices and one request leave no choice: the bound is the makespan."""
    p, d, table = 20, 7, _affine()._replace(reach=reach, state_s=state_s)
    pairs = sum(mean_seen(reach, reach.pair_share, x) for x in range(1, p + 1))
    total = step_times(table, p, pairs, 0, 0.0, 1)[2]
    for j in range(1, d):
        read = mean_seen(reach, reach.read_share, p + j)
        total += step_times(table, 0, 0.0, 1, read, 1)[2]
    prefill = least_prefill(build_tree(_requests([list(range(p))])), reach)
    bound = makespan_bound(
        table,
        prompt_tokens=[p],
        output_tokens=[d],
        prefill=prefill,
        kv_capacity_tokens=1000,
        holding=holding,
    )
    assert bound.steps == d
    assert bound.makespan_s == pytest.approx(total, rel=1e-12)


def test_memory_forces_steps() -> None:
    """Ten requests of which only one fits at a time run one after another."""
    prompts = [[i, *range(100, 119)] for i in range(10)]
    prefill = least_prefill(build_tree(_requests(prompts)))
    roomy, tight = (
        makespan_bound(
            _affine(),
            prompt_tokens=[20] * 10,
            output_tokens=[5] * 10,
            prefill=prefill,
            kv_capacity_tokens=capacity,
        )
        for capacity in (10_000, 24)
    )
    assert roomy.steps == 7, "50 output tokens, 8 sequences a step"
    assert tight.steps == 46, "each of 50 samplings holds 22 of 24 tokens on average"
    assert tight.makespan_s > roomy.makespan_s


def test_states_and_windows_force_steps() -> None:
    """The same without room for the windows and states of two requests at once."""
    prompts = [[*range(100, 119), i] for i in range(10)]
    prefill = least_prefill(build_tree(_requests(prompts)))
    holding = Holding(0.0, ((4.0, 2.0),), (), 5.0)
    bound = makespan_bound(
        _affine(),
        prompt_tokens=[20] * 10,
        output_tokens=[5] * 10,
        prefill=prefill,
        kv_capacity_tokens=14,
        holding=holding,
    )
    # All but a token of each prompt is shared; its window holds 1, 2, 3, 4 and 4 of its own.
    assert bound.steps == -(-10 * (2 * 14 + 5 * 5) // 14)


@pytest.mark.parametrize("name", MODELS)
def test_what_must_be_resident_is_no_more_than_an_engine_holds(name: str) -> None:
    """Of every published layout, request by request and step by step, in whole blocks."""
    layout = kv_layout(MODELS[name], hybrid=True)
    holding = holding_of(layout)
    for prompt, output in ((1, 1), (1, 40), (700, 30), (5000, 2000), (9000, 3), (17, 9000)):
        contexts = prompt + np.arange(output)
        held = layout.block_tokens * int(layout.held_blocks(contexts).sum())
        capacity = 10_000
        bound = makespan_bound(
            _affine(),
            prompt_tokens=[prompt],
            output_tokens=[output],
            # All of it is its own, and nearly nothing is computed.
            prefill=LeastPrefill(1, 1.0, np.array([prompt])),
            kv_capacity_tokens=capacity,
            holding=holding,
        )
        assert bound.steps <= max(output, -(-held // capacity), -(-output // 64))


def test_least_prefill_counts_each_prefix_once() -> None:
    prompts = [[1, 2, 3], [1, 2, 3], [1, 2], [1, 5, 6, 7], [9]]
    prefill = least_prefill(build_tree(_requests(prompts)))
    prefixes = {tuple(p[:x]) for p in prompts for x in range(1, len(p) + 1)}
    assert prefill.tokens == len(prefixes) + 1, "the twin computes its last token again"
    assert prefill.pairs == sum(len(prefix) for prefix in prefixes) + 3
    assert prefill.private_tokens.tolist() == [0, 0, 0, 3, 1]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(PROMPT, st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(0, 60),
    st.sampled_from(REACHES),
)
def test_preemptions_take_out_the_largest_reads(
    requests: list[tuple[list[int], int]], preemptions: int, reach: Reach
) -> None:
    prompts = [prompt for prompt, _ in requests]
    reads = sorted(
        mean_seen(reach, reach.read_share, len(p) + j) for p, d in requests for j in range(1, d)
    )
    kept = reads[: max(0, len(reads) - preemptions)]
    table = _affine()._replace(decode_attention=np.array([1.0, 0.0, 0.0]), reach=reach)
    bound = makespan_bound(
        table,
        prompt_tokens=[len(prompt) for prompt in prompts],
        output_tokens=[d for _, d in requests],
        prefill=least_prefill(build_tree(_requests(prompts))),
        kv_capacity_tokens=1000,
        preemptions=preemptions,
    )
    assert bound.memory_s == pytest.approx(sum(kept), abs=1e-9)


def test_more_overlap_never_raises_the_bound() -> None:
    prompts = [[i, i, i] for i in range(5)]
    prefill = least_prefill(build_tree(_requests(prompts)))
    bounds = [
        makespan_bound(
            _affine(q),
            prompt_tokens=[3] * 5,
            output_tokens=[30] * 5,
            prefill=prefill,
            kv_capacity_tokens=200,
        ).makespan_s
        for q in (1.0, 2.0, np.inf)
    ]
    assert bounds[0] > bounds[1] > bounds[2]


@pytest.mark.parametrize(("overlap", "expected"), [(1.0, 700.0 + 64.0), (np.inf, 700.0)])
def test_few_steps_and_cheap_steps_exclude_each_other(overlap: float, expected: float) -> None:
    """Small steps are cheap but for the time of each step: full ones are best."""
    table = StepTable(
        linear_s=np.maximum(0.0, np.arange(65) - 4.0),
        head_s=np.zeros(65),
        prefill_attention=np.zeros(3),
        decode_attention=np.array([0.0, 1.0, 0.0]),
        overlap=overlap,
        step_s=10.0,
    )
    prompts = [[i] * 9 for i in range(64)]
    bound = makespan_bound(
        table,
        prompt_tokens=[9] * 64,
        output_tokens=[2] * 64,
        prefill=least_prefill(build_tree(_requests(prompts))),
        kv_capacity_tokens=10_000,
    )
    assert bound.makespan_s == pytest.approx(expected)
    assert bound.compute_s < 1.0  # alone, it would be less


def test_no_requests_take_no_time() -> None:
    empty = np.zeros(0, np.int64)
    prefill = replace(least_prefill(build_tree(_requests([[1]]))), private_tokens=empty)
    bound = makespan_bound(
        _affine(), prompt_tokens=empty, output_tokens=empty, prefill=prefill, kv_capacity_tokens=16
    )
    assert (bound.makespan_s, bound.steps) == (0.0, 0)


def test_bad_columns_are_refused() -> None:
    prefill = least_prefill(build_tree(_requests([[1]])))
    with pytest.raises(BlendplanError, match="2 prompt lengths"):
        makespan_bound(
            _affine(),
            prompt_tokens=[1, 2],
            output_tokens=[1],
            prefill=prefill,
            kv_capacity_tokens=16,
        )
    with pytest.raises(BlendplanError, match="must be positive"):
        makespan_bound(
            _affine(), prompt_tokens=[1], output_tokens=[1], prefill=prefill, kv_capacity_tokens=0
        )
