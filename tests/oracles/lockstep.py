"""The simulated engine one step at a time, beside the slow one."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.cost.step import StepTable
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.lengths.predicted import OUTCOMES
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.make import make_policy
from blendplan.policy.state_machine import Policy
from blendplan.requests.columns import Requests
from blendplan.simulator.grouped_cache import GroupedCache, held_blocks
from blendplan.simulator.kv import cache_for, look_up
from blendplan.simulator.loop import step_loop
from blendplan.simulator.series import empty_series
from blendplan.simulator.steps import generated_tokens, idle_engine
from blendplan.simulator.workload import Workload
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from tests.oracles.slow_engine import SlowEngine, Step

# Prices for policies that do not look at them.
PRICES = StepPrices(token_s=1.0, read_s=1.0, least_tokens=1)


def requests_of(prompts: Sequence[Sequence[int]], output_tokens: Sequence[int]) -> Requests:
    """Requests made in memory, with known output lengths and ids 0, 1, 2, ..."""
    n = len(prompts)
    offsets = np.zeros(n + 1, dtype=np.int64)
    np.cumsum([len(prompt) for prompt in prompts], out=offsets[1:])
    flat = [token for prompt in prompts for token in prompt]
    return Requests(
        ids=pa.array([str(row) for row in range(n)], pa.large_string()),
        source_row=np.arange(n),
        token_ids=np.array(flat, dtype=np.int32),
        offsets=offsets,
        output_tokens=np.array(output_tokens, dtype=np.int32),
        max_tokens=np.full(n, -1, dtype=np.int32),
    )


def workload_of(
    prompts: Sequence[Sequence[int]], output_tokens: Sequence[int], block_size: int
) -> Workload:
    """What the simulated engine sees of these requests."""
    requests = requests_of(prompts, output_tokens)
    chains = block_chains(build_tree(requests), requests, block_size)
    return Workload(requests.prompt_tokens, requests.output_tokens, chains)


def input_order(n: int, settings: EngineLimits) -> Policy:
    """The policy ``fcfs`` over n requests."""
    rows, ones = np.arange(n, dtype=np.int64), np.ones(n)
    columns = PolicyInput(rows, rows, rows, ones, ones, np.ones((n, OUTCOMES)), ones, 1.0, PRICES)
    return make_policy("fcfs", columns, settings)


def odd_prices(settings: EngineLimits, overlap: float, reach: Reach = ALL_TOKENS) -> StepTable:
    """Prices in which every number that a step has counts, and none twice alike."""
    tokens = np.arange(settings.max_num_batched_tokens + 1, dtype=np.float64)
    sequences = np.arange(settings.max_num_seqs + 1, dtype=np.float64)
    return StepTable(
        linear_s=np.sqrt(7.0 + tokens) * (tokens > 0),
        head_s=(0.3 + 0.11 * sequences) * (sequences > 0),
        prefill_attention=np.array([0.0013, 0.017, 0.19]),
        decode_attention=np.array([0.0071, 0.023, 0.37]),
        overlap=overlap,
        step_s=0.05,
        state_s=0.031,
        reach=reach,
    )


def price_of(step: Step, table: StepTable) -> tuple[float, float, float]:
    """Compute, memory and step time of one step in plain Python arithmetic, by DESIGN 5."""
    compute_s = float(table.linear_s[step.prefill_tokens + step.decodes])
    compute_s += float(table.head_s[step.sampling])
    if step.prefill_tokens:
        pair_s, token_s, fixed_s = map(float, table.prefill_attention)
        pairs = sum(seen(table.reach, "pair_share", context) for context in step.prefill_contexts)
        compute_s += pair_s * pairs + token_s * step.prefill_tokens + fixed_s
    memory_s = 0.0
    if step.decodes:
        read_s, sequence_s, fixed_s = map(float, table.decode_attention)
        read = sum(seen(table.reach, "read_share", context) for context in step.decode_contexts)
        memory_s = read_s * read + (sequence_s + table.state_s) * step.decodes + fixed_s
    q = table.overlap
    if q == float("inf"):
        both_s = max(compute_s, memory_s)
    else:
        both_s = (compute_s**q + memory_s**q) ** (1 / q)
    return compute_s, memory_s, both_s + table.step_s


def seen(reach: Reach, share: str, context: int) -> float:
    """Tokens that the last one of a context looks at, a mean over the layers by their share."""
    total = 0.0
    shares = getattr(reach, share).tolist()
    for tokens, chunked, part in zip(reach.tokens.tolist(), reach.chunked, shares, strict=True):
        keys = range(context)
        if tokens and chunked:
            keys = range((context - 1) // tokens * tokens, context)
        elif tokens:
            keys = range(max(0, context - tokens), context)
        total += part * len(keys)
    return total


class FastEngine:
    """The simulated engine, stepped by hand."""

    def __init__(
        self,
        workload: Workload,
        settings: EngineLimits,
        policy: Policy,
        table: StepTable,
        layout: KvLayout | None = None,
    ) -> None:
        self.policy = policy
        self.table = table
        self.engine = idle_engine(
            workload.prompt_tokens, workload.output_tokens, settings, table.reach, layout
        )
        self.cache = cache_for(workload, settings, layout)
        self.series = empty_series()

    def step(self) -> bool:
        """Take one step; True when every request has finished."""
        run_steps = step_loop(self.policy.transitions)
        return run_steps(self.engine, self.cache, self.policy.state, self.table, self.series, 1)

    def count(self, name: str) -> int:
        """One of the engine's numbers."""
        return int(getattr(self.engine.now[0], name))

    @property
    def running(self) -> list[int]:
        """Running requests in order of admission."""
        return [int(request) for request in self.engine.running[: self.count("running")]]

    @property
    def waiting_again(self) -> list[int]:
        """Preempted requests, the next to be admitted first."""
        waiting = self.engine.waiting_again[: self.count("waiting_again")]
        return [int(request) for request in waiting[::-1]]

    @property
    def free_blocks(self) -> int:
        """Free blocks of the KV cache."""
        return int(self.cache.now[0].free)

    def hits(self, request: int) -> int:
        """Tokens that a request would hit if it were admitted now."""
        known = self.engine.prompt_tokens[request] + self.engine.generated[request]
        return int(look_up(self.cache, request, known)[0])

    def held(self, request: int) -> int:
        """Blocks that a running request holds."""
        if isinstance(self.cache, GroupedCache):
            return held_blocks(self.cache, request)
        return int(self.cache.room[request]) // self.cache.block_size


def assert_same_state(fast: FastEngine, slow: SlowEngine) -> None:
    """Both engines stand at the same point after a step, and the caches hold the same content."""
    engine = fast.engine
    assert fast.running == slow.running
    assert fast.waiting_again == list(slow.waiting_again)
    sampled = [sum(tokens) for tokens in zip(slow.generated, slow.placeholders, strict=True)]
    assert engine.generated.tolist() == sampled
    assert generated_tokens(engine).tolist() == slow.generated
    assert engine.computed.tolist() == slow.computed
    assert fast.free_blocks == slow.kv.pool.free()
    assert fast.count("finished") == slow.finished
    assert fast.count("steps") == len(slow.steps)
    assert fast.count("preemptions") == slow.preemptions
    assert fast.count("prefill_tokens") == sum(step.prefill_tokens for step in slow.steps)
    admitted = list(slow.cached_tokens)
    assert engine.admission[: fast.count("admitted")].tolist() == admitted
    assert engine.cached_tokens[admitted].tolist() == list(slow.cached_tokens.values())
    for request in slow.running:
        assert fast.held(request) == slow.kv.held(request)
    for request in range(len(slow.prompts)):
        if request not in slow.running and slow.generated[request] < slow.output_tokens[request]:
            hit, _ = slow.kv.look_up(request, slow.known(request))
            assert fast.hits(request) == hit, request
