"""The step loop of the simulated engine: vLLM V1's scheduler with a policy at its waiting queue.

Rules of vllm/v1/core/sched/scheduler.py (0.32, fcfs, synchronous scheduling): a step serves the
running requests first, in admission order, then admits; tokens per step and running requests are
limited; a prompt is computed in chunks that fit what is left of the step; a request is admitted
only when its whole prompt fits, its output is not reserved; when a running request needs a block
and none is free, the one admitted last loses its blocks and waits at the front of the queue, and
the step admits nobody.

One thing is the policy's: a limit on the prefill tokens of a step, below the engine's own limit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.step import StepTable, step_times
from blendplan.hardware.engine_settings import EngineSettings
from blendplan.kernel import kernel
from blendplan.policy import state_machine as policy
from blendplan.policy.state import SHARE, PolicyState
from blendplan.simulator.kv_cache import (
    FREE,
    KvCache,
    allocate,
    cached_blocks,
    hold_cached,
    register,
    release,
)
from blendplan.simulator.series import Series, record

# Entries of Engine.counts.
RUNNING, WAITING_AGAIN, ADMITTED, FINISHED, STEPS, PREEMPTIONS, PREFILL = range(7)
# Entries of Engine.seconds.
CLOCK, COMPUTE_S, MEMORY_S = range(3)


class Engine(NamedTuple):
    """State of the engine, and what it writes down, over n requests.

    Attributes:
        max_num_seqs, max_num_batched_tokens: limits.
        prompt_tokens, output_tokens: int32 [n].
        running: requests in the order of their admission; int64 [max_num_seqs].
        waiting_again: preempted requests, the next to be admitted last; int64 [n].
        computed, generated: tokens in the cache and tokens sampled, per request; int32 [n].
        counts: RUNNING, WAITING_AGAIN, ADMITTED, FINISHED, STEPS, PREEMPTIONS, PREFILL (prompt
            tokens computed, again after a preemption included); int64 [7].
        seconds: CLOCK, and the sums of compute and memory time; float64 [3].
        admission: requests in the order of their first admission; int64 [n].
        admission_step, start_s, finish_s: per request; int64 [n], float64 [n], float64 [n].
        cached_tokens: prompt tokens hit at the first admission; int32 [n].
        share_tokens: memory partition in force then, compute and memory side; int64 [n, 2].
        prefill_budget: prefill tokens allowed in that step; int32 [n].
        decode_batches: steps by the number of sequences that decode; int64 [max_num_seqs + 1].
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    running: NDArray[np.int64]
    waiting_again: NDArray[np.int64]
    computed: NDArray[np.int32]
    generated: NDArray[np.int32]
    counts: NDArray[np.int64]
    seconds: NDArray[np.float64]
    admission: NDArray[np.int64]
    admission_step: NDArray[np.int64]
    start_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    cached_tokens: NDArray[np.int32]
    share_tokens: NDArray[np.int64]
    prefill_budget: NDArray[np.int32]
    decode_batches: NDArray[np.int64]


def idle_engine(
    prompt_tokens: NDArray[np.int32], output_tokens: NDArray[np.int32], settings: EngineSettings
) -> Engine:
    """An engine that has not started."""
    n = len(prompt_tokens)
    return Engine(
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        prompt_tokens=np.ascontiguousarray(prompt_tokens, dtype=np.int32),
        output_tokens=np.ascontiguousarray(output_tokens, dtype=np.int32),
        running=np.zeros(settings.max_num_seqs, dtype=np.int64),
        waiting_again=np.zeros(n, dtype=np.int64),
        computed=np.zeros(n, dtype=np.int32),
        generated=np.zeros(n, dtype=np.int32),
        counts=np.zeros(7, dtype=np.int64),
        seconds=np.zeros(3, dtype=np.float64),
        admission=np.zeros(n, dtype=np.int64),
        admission_step=np.zeros(n, dtype=np.int64),
        start_s=np.zeros(n, dtype=np.float64),
        finish_s=np.zeros(n, dtype=np.float64),
        cached_tokens=np.zeros(n, dtype=np.int32),
        share_tokens=np.zeros((n, 2), dtype=np.int64),
        prefill_budget=np.zeros(n, dtype=np.int32),
        decode_batches=np.zeros(settings.max_num_seqs + 1, dtype=np.int64),
    )


@kernel
def run_steps(
    engine: Engine,
    cache: KvCache,
    state: PolicyState,
    table: StepTable,
    series: Series,
    most_steps: int,
) -> bool:
    """Run up to ``most_steps`` steps; True when every request has finished.

    Returns early, with False and without a step taken, when the engine is idle and the policy
    admits nothing: the caller turns that into an error.
    """
    counts = engine.counts
    for _ in range(most_steps):
        if counts[FINISHED] == len(engine.prompt_tokens):
            return True
        if not _step(engine, cache, state, table, series):
            return False
    return counts[FINISHED] == len(engine.prompt_tokens)


@kernel
def _step(
    engine: Engine, cache: KvCache, state: PolicyState, table: StepTable, series: Series
) -> bool:
    counts = engine.counts
    computed = engine.computed
    tokens_left = engine.max_num_batched_tokens
    used_tokens = (cache.blocks - cache.counts[FREE]) * float(cache.block_size)
    prefill_budget = policy.begin_step(state, counts[RUNNING], used_tokens)
    prefill_left = min(prefill_budget, tokens_left)
    prefill_tokens = 0
    prefill_pairs = 0.0
    decode_sequences = 0
    kv_tokens = 0
    sampling = 0
    nobody_preempted = True

    position = 0
    while position < counts[RUNNING] and tokens_left > 0:
        request = engine.running[position]
        known = engine.prompt_tokens[request] + engine.generated[request]
        before = computed[request]
        new = known - before
        decoding = new == 1 and engine.generated[request] > 0
        if not decoding:
            new = min(new, prefill_left)
        new = min(new, tokens_left)
        if new == 0:
            position += 1
            continue
        if before + new > cache.held[request] * cache.block_size:
            blocks = -(-(before + new) // cache.block_size) - cache.held[request]
            while blocks > cache.counts[FREE]:
                nobody_preempted = False
                if _preempt_last(engine, cache, state) == request:
                    break
            if position == counts[RUNNING]:
                break
            allocate(cache, request, blocks)
        computed[request] = before + new
        tokens_left -= new
        position += 1
        if before + new == known:
            sampling += 1
        if decoding:
            decode_sequences += 1
            kv_tokens += known
        else:
            register(cache, request, before, before + new)
            prefill_left -= new
            prefill_tokens += new
            prefill_pairs += new * float(before) + new * (new + 1) / 2

    while (
        nobody_preempted
        and tokens_left > 0
        and prefill_left > 0
        and counts[RUNNING] < engine.max_num_seqs
    ):
        again = counts[WAITING_AGAIN] > 0
        if again:
            request = engine.waiting_again[counts[WAITING_AGAIN] - 1]
        else:
            request = policy.next_request(state, counts[RUNNING])
            if request < 0:
                break
        known = engine.prompt_tokens[request] + engine.generated[request]
        hits, free_hits = cached_blocks(cache, request, known)
        if -(-known // cache.block_size) - hits + free_hits > cache.counts[FREE]:
            break
        before = hits * cache.block_size
        new = min(known - before, min(tokens_left, prefill_left))
        hold_cached(cache, request, hits)
        allocate(cache, request, -(-(before + new) // cache.block_size) - hits)
        register(cache, request, before, before + new)
        computed[request] = before + new
        engine.running[counts[RUNNING]] = request
        counts[RUNNING] += 1
        if before + new == known:
            sampling += 1
        tokens_left -= new
        prefill_left -= new
        prefill_tokens += new
        prefill_pairs += new * float(before) + new * (new + 1) / 2
        policy.admitted(state, request)
        if again:
            counts[WAITING_AGAIN] -= 1
        else:
            _write_admission(engine, state, request, before, prefill_budget)

    if prefill_tokens + decode_sequences == 0:
        # Everybody was preempted to make room for nobody, or nobody may enter an idle engine.
        return not nobody_preempted

    compute_s, memory_s, step_s = step_times(
        table, prefill_tokens, prefill_pairs, decode_sequences, float(kv_tokens), sampling
    )
    engine.seconds[CLOCK] += step_s
    engine.seconds[COMPUTE_S] += compute_s
    engine.seconds[MEMORY_S] += memory_s
    counts[PREFILL] += prefill_tokens
    engine.decode_batches[decode_sequences] += 1
    record(
        series,
        counts[STEPS],
        engine.seconds[CLOCK],
        step_s,
        compute_s,
        memory_s,
        (cache.blocks - cache.counts[FREE]) * cache.block_size,
        counts[RUNNING],
        prefill_tokens,
        decode_sequences,
    )
    counts[STEPS] += 1
    _sample(engine, cache, state)
    return True


@kernel
def _preempt_last(engine: Engine, cache: KvCache, state: PolicyState) -> int:
    counts = engine.counts
    counts[RUNNING] -= 1
    victim = engine.running[counts[RUNNING]]
    release(cache, victim, engine.computed[victim])
    engine.computed[victim] = 0
    engine.waiting_again[counts[WAITING_AGAIN]] = victim
    counts[WAITING_AGAIN] += 1
    counts[PREEMPTIONS] += 1
    policy.preempted(state, victim)
    return victim


@kernel
def _write_admission(
    engine: Engine, state: PolicyState, request: int, cached_tokens: int, prefill_budget: int
) -> None:
    counts = engine.counts
    engine.admission[counts[ADMITTED]] = request
    counts[ADMITTED] += 1
    engine.admission_step[request] = counts[STEPS]
    engine.start_s[request] = engine.seconds[CLOCK]
    engine.cached_tokens[request] = cached_tokens
    engine.share_tokens[request, 0] = round(state.level[SHARE])
    engine.share_tokens[request, 1] = round(state.level[SHARE + 1])
    engine.prefill_budget[request] = prefill_budget


@kernel
def _sample(engine: Engine, cache: KvCache, state: PolicyState) -> None:
    """Every request whose known tokens are all computed gets its next one; the done ones leave."""
    counts = engine.counts
    kept = 0
    for position in range(counts[RUNNING]):
        request = engine.running[position]
        known = engine.prompt_tokens[request] + engine.generated[request]
        if engine.computed[request] == known:
            engine.generated[request] += 1
            if engine.generated[request] == engine.output_tokens[request]:
                release(cache, request, engine.computed[request])
                engine.finish_s[request] = engine.seconds[CLOCK]
                counts[FINISHED] += 1
                policy.finished(state, request)
                continue
        engine.running[kept] = request
        kept += 1
    counts[RUNNING] = kept
