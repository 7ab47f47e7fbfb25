"""`revise`: the policy `blend` goes over to better predictions while it runs."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.learning import OUTLIVING, elapsed_steps, expect_reads
from blendplan.policy.blend.start import Arrangement, BlendOptions, blend_state
from blendplan.policy.blend.state import BlendState
from blendplan.policy.blend.steps import enter
from blendplan.policy.blend.timetable import arrange
from blendplan.policy.known import PolicyInput
from blendplan.policy.progress import Progress, carried
from blendplan.policy.state_machine import Policy

# What goes on as it was.
_KEPT = (
    "clock",
    "limit",
    "lost_tokens",
    "new_tokens",
    "used_tokens",
    "weighed",
    "running",
    "running_offset",
    "running_level",
    "credit_tokens",
    "saved_tokens",
    "burst_tokens",
    "burst_end",
    "reads_running",
)


def revise(
    policy: Policy,
    known: PolicyInput,
    progress: Progress,
    limits: EngineLimits,
    kept: NDArray[np.int64] | None = None,
) -> Policy:
    """The same policy with what is known by now; waiting requests are arranged anew.

    Args:
        policy: as far as it has come.
        known: what is known of n requests by now.
        progress: of the run.
        limits: of the engine.
        kept: the policy's number of each request, -1 of one that it did not know, which waits;
            int64 [n]. Without it the requests are the same.
    """
    old = policy.state
    waits = ~progress.admitted
    if not isinstance(old, BlendState):
        return policy  # A plain queue does not look at lengths.
    if kept is not None:
        old = old._replace(
            started=carried(old.started, kept),
            generated=carried(old.generated, kept),
            memory_side=carried(old.memory_side, kept),
            level_reads=carried(old.level_reads, kept),
        )
        policy = replace(policy, side=carried(policy.side, kept))
    elif not waits.any():
        return policy
    options = BlendOptions(**policy.parameters)  # type: ignore[arg-type]
    unfinished = np.flatnonzero(~progress.finished)
    elapsed = _elapsed(old, progress.running)
    left = _left(known, elapsed).take(unfinished)
    part = blend_state(left, arrange(left, limits, options), limits, options)
    memory_side = old.memory_side.copy()
    waiting = np.flatnonzero(waits)
    memory_side[waiting] = part.memory_side[waits[unfinished]]
    nobody = np.empty(0, dtype=np.int64)
    whole = blend_state(known, Arrangement(nobody, nobody), limits, options)
    now = part.now.copy().view(np.recarray)
    for name in _KEPT:
        now[name] = old.now[name]
    held = known.new_prompt_tokens + known.output_tokens
    now["tokens_left"] = held[waiting].sum()
    for number in range(2):
        now["reads_left"][:, number] = known.reads[waits & (memory_side == number)].sum()
    orders = (unfinished[order] for order in (part.compute_order, part.memory_order))
    compute_order, memory_order = (
        _first(progress.entering, order[waits[order]]) for order in orders
    )
    state = whole._replace(
        compute_order=compute_order,
        memory_order=memory_order,
        memory_side=memory_side,
        # What has been added up for a request is taken back as it was.
        level_reads=np.where(waits, whole.level_reads, old.level_reads),
        output_tokens=np.maximum(known.output_tokens, np.where(waits, 0.0, elapsed)),
        started=old.started,
        generated=old.generated,
        now=now,
    )
    is_running = np.zeros(len(known), dtype=np.bool_)
    is_running[progress.running] = True
    _expect_all(state, np.flatnonzero(~waits & ~progress.finished), is_running)
    # What running requests hold has been computed.
    parameters = part.parameters._replace(tokens=float(now[0].tokens_left))
    state = state._replace(parameters=parameters)
    now[0].bucket = int(now[0].clock) // parameters.bucket_steps
    _enter_all(state, progress.running)
    side = policy.side
    side[waiting] = memory_side[waiting]
    return replace(policy, state=state, side=side)


def _elapsed(state: BlendState, running: NDArray[np.int64]) -> NDArray[np.float64]:
    """Steps that each request has run; float64 [n]."""
    elapsed = state.generated.astype(np.float64)
    elapsed[running] += state.now[0].clock - state.started[running]
    return elapsed


def _left(known: PolicyInput, elapsed: NDArray[np.float64]) -> PolicyInput:
    """What is left of each request: it holds what it has generated, and goes on from there."""
    number = known.outcomes.shape[1]
    outlived = (known.outcomes <= elapsed[:, None]).sum(axis=1)[:, None]
    # The outcomes that are left, each about as often as any other.
    place = outlived + ((np.arange(number) + 0.5) / number * (number - outlived)).astype(np.int64)
    outcomes = np.take_along_axis(known.outcomes, np.minimum(place, number - 1), axis=1)
    outcomes = np.where(outlived < number, outcomes, OUTLIVING * elapsed[:, None] + 1.0)
    return replace(
        known,
        prompt_tokens=known.prompt_tokens + elapsed,
        new_prompt_tokens=known.new_prompt_tokens + elapsed,
        outcomes=outcomes - elapsed[:, None],
    )


def _first(entering: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order with some of its requests before all others."""
    return order[np.argsort(~np.isin(order, entering), kind="stable")]


@kernel
def _expect_all(
    state: BlendState, unfinished: NDArray[np.int64], running: NDArray[np.bool_]
) -> None:
    """Note what is left of requests that have run, given how far they have come."""
    now = state.now[0]
    for request in unfinished:
        if not running[request]:
            # A preempted one stands still.
            state.started[request] = int(now.clock)
        elapsed = elapsed_steps(state, request)
        now.tokens_left += state.output_tokens[request] - elapsed
        expect_reads(state, request)
        now.reads_expected[int(state.memory_side[request])] += state.likely_reads[request]


@kernel
def _enter_all(state: BlendState, running: NDArray[np.int64]) -> None:
    """Enter the running requests among those that hold KV tokens."""
    for request in running:
        enter(state, request)
