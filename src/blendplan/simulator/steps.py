"""One step of the simulated engine, in three parts: serve, admit, price.

Rules of vllm/v1/core/sched/scheduler.py (0.32, fcfs): a step serves the running requests first, in
admission order, then admits; tokens per step and running requests are limited; a prompt is computed
in chunks that fit what is left of the step; a request is admitted only when its whole prompt fits,
its output is not reserved; when a running request needs a block and none is free, the one admitted
last loses its blocks and waits at the front of the queue, and the step admits nobody.

With asynchronous scheduling a step is scheduled before the output of the one before it is there
(async_scheduler.py, and `step_with_batch_queue` in vllm/v1/engine/core.py). A request whose last
token is under way is not served again, for its length is known; it keeps its seat and its blocks
until the next step is scheduled. It may be the one that loses its blocks: then it does not wait
again, and still nobody is admitted.

One thing is the policy's: a limit on the prefill tokens of a step, below the engine's own limit.
Nothing here asks a policy: whoever runs the steps calls

    begin           with the limit
    serve           then `lost` are the requests that were preempted
    may_admit, admit, as long as there is a request to try
    price           the time of the step, and its place in the series
    sample          then `done` are the requests that finished and made room

With asynchronous scheduling, they make room in the next step, by `leave` before `price`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.reach import ALL_TOKENS, Reach, pairs_of, sees_all, tokens_read
from blendplan.cost.step import StepTable, step_times
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.kernels.kernel import kernel
from blendplan.kernels.scalars import scalars
from blendplan.simulator.kv import (
    AnyCache,
    cut,
    enter,
    lacking,
    look_up,
    new_step,
    release,
    supply,
    used_tokens,
)
from blendplan.simulator.series import Series, record

NOW = np.dtype(
    [
        ("async_scheduling", "i8"),
        ("running", "i8"),
        ("waiting_again", "i8"),
        ("admitted", "i8"),
        ("finished", "i8"),
        ("prompts", "i8"),
        ("steps", "i8"),
        ("preemptions", "i8"),
        ("prefill_tokens", "i8"),
        ("clock_s", "f8"),
        ("compute_s", "f8"),
        ("memory_s", "f8"),
    ]
)
STEP = np.dtype(
    [
        ("prefill_budget", "i8"),
        ("largest", "i8"),
        ("tokens_left", "i8"),
        ("prefill_left", "i8"),
        ("prefill_tokens", "i8"),
        ("prefill_pairs", "f8"),
        ("prefill_sequences", "i8"),
        ("decode_sequences", "i8"),
        ("kv_tokens_read", "f8"),
        ("sampling", "i8"),
        ("victims", "i8"),
        ("lost", "i8"),
        ("done", "i8"),
        ("time_s", "f8"),
    ]
)


class Engine(NamedTuple):
    """State of the engine, and what it writes down, over n requests.

    Attributes:
        max_num_seqs, max_num_batched_tokens: limits.
        least_prefill_tokens: fewest prefill tokens that a step may be limited to.
        reach: how far back attention looks.
        prompt_tokens, output_tokens: int32 [n].
        running: requests in the order of their admission; int64 [max_num_seqs].
        waiting_again: preempted requests, the next to be admitted last; int64 [n].
        computed, generated: tokens in the cache and tokens sampled, per request; int32 [n].
        generated_before: of those, the ones sampled before its present admission, or before the
            last step that had no token for it; int32 [n].
        contexts: tokens of the context of each request that decodes in the step at hand; int64
            [max_num_seqs].
        now: whether there is ``async_scheduling``; numbers of requests ``running``,
            ``waiting_again``, ``admitted`` once, and ``finished`` and gone; of those that run, how
            many are in the middle of their ``prompts``; ``steps`` and ``preemptions``;
            ``prefill_tokens`` computed, again after a preemption included; ``clock_s``, and the
            sums of compute and memory time; one record.
        step: of the step at hand the prefill tokens allowed, the ``largest`` step that they make,
            what is left of them and of all tokens, and what it computes: ``prefill_pairs`` are
            (query, key) pairs of causal attention and ``kv_tokens_read`` what decodes read, both
            by ``reach``; ``sampling`` the requests that get a token; ``victims``, how many
            requests lost their blocks in it, and ``lost``, those of them that wait again;
            ``done``, how many requests have finished; ``time_s``; one record.
        done: the requests that finished last; int64 [max_num_seqs].
        admission: requests in the order of their first admission; int64 [n].
        admission_step: of the first admission; int64 [n].
        span_s: first admission and end, per request; float64 [n, 2].
        cached_tokens: prompt tokens hit at the first admission; int32 [n].
        share_tokens: memory partition in force then, compute and memory side; int64 [n, 2].
        prefill_budget: prefill tokens allowed in that step; int32 [n].
        mixed_steps: steps that compute prompt tokens, by all of their tokens; int64
            [max_num_batched_tokens + 1].
        decode_steps: steps that only decode, by their sequences; int64 [max_num_seqs + 1].
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    least_prefill_tokens: int
    reach: Reach
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    running: NDArray[np.int64]
    waiting_again: NDArray[np.int64]
    computed: NDArray[np.int32]
    generated: NDArray[np.int32]
    generated_before: NDArray[np.int32]
    contexts: NDArray[np.int64]
    now: NDArray[np.void]
    step: NDArray[np.void]
    done: NDArray[np.int64]
    admission: NDArray[np.int64]
    admission_step: NDArray[np.int64]
    span_s: NDArray[np.float64]
    cached_tokens: NDArray[np.int32]
    share_tokens: NDArray[np.int64]
    prefill_budget: NDArray[np.int32]
    mixed_steps: NDArray[np.int64]
    decode_steps: NDArray[np.int64]


def idle_engine(
    prompt_tokens: NDArray[np.int32],
    output_tokens: NDArray[np.int32],
    limits: EngineLimits,
    reach: Reach = ALL_TOKENS,
    layout: KvLayout | None = None,
) -> Engine:
    """An engine that has not started; its steps are priced by tables of that reach.

    Args:
        prompt_tokens, output_tokens: of each request; int32 [n].
        limits: of the engine.
        reach: how far back attention looks.
        layout: of the KV cache; None where all layers keep all tokens.
    """
    n = len(prompt_tokens)
    least = 0 if layout is None else layout.least_chunk_tokens
    return Engine(
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        least_prefill_tokens=min(least, limits.max_num_batched_tokens),
        reach=reach,
        prompt_tokens=np.ascontiguousarray(prompt_tokens, dtype=np.int32),
        output_tokens=np.ascontiguousarray(output_tokens, dtype=np.int32),
        running=np.zeros(limits.max_num_seqs, dtype=np.int64),
        waiting_again=np.zeros(n, dtype=np.int64),
        computed=np.zeros(n, dtype=np.int32),
        generated=np.zeros(n, dtype=np.int32),
        generated_before=np.zeros(n, dtype=np.int32),
        contexts=np.zeros(limits.max_num_seqs, dtype=np.int64),
        now=scalars(NOW, async_scheduling=int(limits.async_scheduling)),
        step=scalars(STEP),
        done=np.zeros(limits.max_num_seqs, dtype=np.int64),
        admission=np.zeros(n, dtype=np.int64),
        admission_step=np.zeros(n, dtype=np.int64),
        span_s=np.zeros((n, 2), dtype=np.float64),
        cached_tokens=np.zeros(n, dtype=np.int32),
        share_tokens=np.zeros((n, 2), dtype=np.int64),
        prefill_budget=np.zeros(n, dtype=np.int32),
        mixed_steps=np.zeros(limits.max_num_batched_tokens + 1, dtype=np.int64),
        decode_steps=np.zeros(limits.max_num_seqs + 1, dtype=np.int64),
    )


@kernel
def known_tokens(engine: Engine, request: int) -> int:
    """Prompt and generated tokens of a request."""
    return engine.prompt_tokens[request] + engine.generated[request]


@kernel
def _decodes(engine: Engine, request: int) -> bool:
    """Whether all that a running request lacks in the cache is the token it generated last."""
    left = known_tokens(engine, request) - engine.computed[request]
    return left == 1 and engine.generated[request] > 0


def generated_tokens(engine: Engine) -> NDArray[np.int32]:
    """Output tokens of each request, as far as a scheduler knows of them between two steps.

    With asynchronous scheduling, what the last step samples is not among them; int32 [n].
    """
    generated: NDArray[np.int32] = engine.generated.copy()
    if engine.now[0].async_scheduling:
        running = engine.running[: engine.now[0].running]
        generated[running] -= generated[running] > engine.generated_before[running]
    return generated


@kernel
def begin(engine: Engine, prefill_budget: int) -> None:
    """Start a step that may compute so many prefill tokens, beside one of each running request.

    A request whose prompt is not all computed, or whose last token is under way, leaves its token
    to prefill: a step that has enough to do has exactly as many tokens as its policy meant it to
    have.
    """
    now, step = engine.now[0], engine.step[0]
    if not now.async_scheduling:
        step.done = 0
    step.prefill_budget = max(prefill_budget, engine.least_prefill_tokens)
    step.tokens_left = engine.max_num_batched_tokens
    left_over = step.done + now.prompts
    step.prefill_left = min(step.prefill_budget + left_over, engine.max_num_batched_tokens)
    step.largest = min(now.running + step.prefill_budget, engine.max_num_batched_tokens)
    step.prefill_tokens = 0
    step.prefill_pairs = 0.0
    step.prefill_sequences = 0
    step.decode_sequences = 0
    step.kv_tokens_read = 0.0
    step.sampling = 0
    step.victims = 0
    step.lost = 0


@kernel
def serve(engine: Engine, cache: AnyCache) -> None:
    """Give the running requests their tokens, and preempt from the end where blocks run out.

    The requests that lost their blocks are the last ``step.lost`` of ``waiting_again``.
    """
    now, step = engine.now[0], engine.step[0]
    new_step(cache)
    # Most requests decode: what that changes stays in local variables, and nothing is called, for a
    # call is handed all arrays of the engine.
    prompt_tokens, output_tokens = engine.prompt_tokens, engine.output_tokens
    computed, generated = engine.computed, engine.generated
    tokens_left = step.tokens_left
    some_are_done = step.done > 0
    decoding = context_tokens = 0
    place = 0
    while place < now.running and tokens_left > 0:
        request = engine.running[place]
        if some_are_done and generated[request] == output_tokens[request]:
            place += 1
            continue
        before = computed[request]
        known = prompt_tokens[request] + generated[request]
        new = known - before
        decodes = new == 1 and generated[request] > 0
        if not decodes:
            new = min(new, step.prefill_left, tokens_left)
            new = cut(cache, request, known, before, new, step.largest)
            if new == 0:
                place += 1
                continue
        if not decodes or before + new > cache.room[request]:
            under_way = 0
            if decodes and now.async_scheduling and _is_under_way(engine, request):
                under_way = 1
            blocks = lacking(cache, request, before, new, known, under_way)
            while blocks > cache.now[0].free:
                if _preempt_last(engine, cache) == request:
                    break
            if place == now.running:
                break
            supply(cache, request, before, new, before + new - under_way, blocks)
        if decodes:
            engine.contexts[decoding] = before + new
            decoding += 1
            context_tokens += before + new
            computed[request] = before + new
        else:
            _prefill(engine, request, before, new)
        tokens_left -= new
        place += 1
    step.tokens_left = tokens_left
    step.decode_sequences = decoding
    step.kv_tokens_read = float(context_tokens)
    if not sees_all(engine.reach):
        step.kv_tokens_read = 0.0
        for place in range(decoding):
            step.kv_tokens_read += tokens_read(engine.reach, engine.contexts[place])
    step.sampling += decoding


@kernel
def _prefill(engine: Engine, request: int, before: int, new: int) -> None:
    """Compute ``new`` prompt tokens of a request that has ``before`` in the cache."""
    step = engine.step[0]
    engine.computed[request] = before + new
    step.prefill_left -= new
    step.prefill_tokens += new
    step.prefill_sequences += 1
    step.prefill_pairs += pairs_of(engine.reach, before, new)
    if before + new == known_tokens(engine, request):
        step.sampling += 1


@kernel
def _is_done(engine: Engine, request: int) -> bool:
    """Whether a request has its last token, or has it under way."""
    return engine.generated[request] == engine.output_tokens[request]


@kernel
def _is_under_way(engine: Engine, request: int) -> bool:
    """Whether the token that a request sampled last came from the step before this one."""
    return engine.generated[request] > engine.generated_before[request]


@kernel
def _preempt_last(engine: Engine, cache: AnyCache) -> int:
    now = engine.now[0]
    now.running -= 1
    victim = engine.running[now.running]
    computed = engine.computed[victim]
    sampled = engine.generated[victim] - engine.generated_before[victim]
    if now.async_scheduling and sampled > 1:
        # Its newest token came after its blocks were last hashed.
        computed -= 1
    release(cache, victim, computed)
    now.prompts -= int(not _decodes(engine, victim))
    engine.computed[victim] = 0
    engine.step[0].victims += 1
    if _is_done(engine, victim):
        return victim
    engine.waiting_again[now.waiting_again] = victim
    now.waiting_again += 1
    now.preemptions += 1
    engine.step[0].lost += 1
    return victim


@kernel
def may_admit(engine: Engine) -> bool:
    """Whether the step may admit another request, if its prompt fits the KV cache."""
    step = engine.step[0]
    return (
        step.victims == 0
        and step.tokens_left > 0
        and step.prefill_left > 0
        and engine.now[0].running < engine.max_num_seqs
    )


@kernel
def admit(engine: Engine, cache: AnyCache, request: int) -> bool:
    """Admit a waiting request, for the first time or again; False where it does not fit now."""
    now, step = engine.now[0], engine.step[0]
    known = known_tokens(engine, request)
    before, free_hits = look_up(cache, request, known)
    new = min(known - before, min(step.tokens_left, step.prefill_left))
    new = cut(cache, request, known, before, new, step.largest)
    if new == 0 or not enter(cache, request, known, before, free_hits, new):
        return False
    _prefill(engine, request, before, new)
    step.tokens_left -= new
    engine.running[now.running] = request
    engine.generated_before[request] = engine.generated[request]
    now.running += 1
    if now.waiting_again > 0 and engine.waiting_again[now.waiting_again - 1] == request:
        now.waiting_again -= 1
        return True
    engine.admission[now.admitted] = request
    now.admitted += 1
    engine.admission_step[request] = now.steps
    engine.span_s[request, 0] = now.clock_s
    engine.cached_tokens[request] = before
    engine.prefill_budget[request] = step.prefill_budget
    return True


@kernel
def price(engine: Engine, cache: AnyCache, table: StepTable, series: Series) -> bool:
    """Let the time of the step pass; False where it computes nothing and takes no time."""
    now, step = engine.now[0], engine.step[0]
    if step.prefill_tokens + step.decode_sequences == 0:
        return False
    compute_s, memory_s, step_s = step_times(
        table,
        step.prefill_tokens,
        step.prefill_pairs,
        step.decode_sequences,
        step.kv_tokens_read,
        step.sampling,
    )
    step.time_s = step_s
    now.clock_s += step_s
    now.compute_s += compute_s
    now.memory_s += memory_s
    now.prefill_tokens += step.prefill_tokens
    if step.prefill_tokens > 0:
        engine.mixed_steps[step.prefill_tokens + step.decode_sequences] += 1
    else:
        engine.decode_steps[step.decode_sequences] += 1
    record(
        series,
        now.steps,
        now.clock_s,
        step_s,
        compute_s,
        memory_s,
        used_tokens(cache),
        now.running,
        step.prefill_tokens,
        step.decode_sequences,
    )
    now.steps += 1
    return True


@kernel
def sample(engine: Engine, cache: AnyCache) -> None:
    """Every request whose known tokens are all computed gets its next one; the done ones leave.

    They are the first ``step.done`` of ``engine.done``. With asynchronous scheduling they stay.
    """
    now, step = engine.now[0], engine.step[0]
    running, kept, prompts = now.running, 0, 0
    prompt_tokens, output_tokens = engine.prompt_tokens, engine.output_tokens
    computed, generated = engine.computed, engine.generated
    for place in range(running):
        request = engine.running[place]
        if computed[request] == prompt_tokens[request] + generated[request]:
            generated[request] += 1
            if generated[request] == output_tokens[request]:
                engine.span_s[request, 1] = now.clock_s
                engine.done[step.done] = request
                step.done += 1
                if not now.async_scheduling:
                    release(cache, request, engine.computed[request])
                    now.finished += 1
                    continue
        elif not _decodes(engine, request):
            prompts += 1
        else:
            # There was no token for it: nothing of it is under way.
            engine.generated_before[request] = engine.generated[request]
        engine.running[kept] = request
        kept += 1
    now.running = kept
    now.prompts = prompts


@kernel
def leave(engine: Engine, cache: AnyCache) -> int:
    """Those that were done before this step leave; how many there are in ``engine.done``."""
    now, step = engine.now[0], engine.step[0]
    done, running, kept = step.done, now.running, 0
    if done > 0:
        for place in range(running):
            request = engine.running[place]
            if _is_done(engine, request):
                release(cache, request, engine.computed[request])
            else:
                engine.running[kept] = request
                kept += 1
        now.running = kept
        now.finished += done
        step.done = 0
    return done
