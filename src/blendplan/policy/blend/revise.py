"""`revise`: the policy `blend` goes over to better predictions while it runs."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.policy.blend.learning import elapsed_steps, expect_reads
from blendplan.policy.blend.start import BlendOptions, blend_state
from blendplan.policy.blend.state import BlendState
from blendplan.policy.blend.steps import enter
from blendplan.policy.blend.timetable import arrange
from blendplan.policy.known import PolicyInput
from blendplan.policy.progress import Progress
from blendplan.policy.siblings import SiblingState
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
    "credit_tokens",
    "reads_running",
)


def revise(policy: Policy, known: PolicyInput, progress: Progress, limits: EngineLimits) -> Policy:
    """The same policy with what is known by now; waiting requests are arranged anew.

    Args:
        policy: over n requests, as far as it has come.
        known: what is known of them by now.
        progress: of the run.
        limits: of the engine.
    """
    if isinstance(policy.state, SiblingState):
        together = policy.state
        inner = replace(policy, state=together.inner)
        changed = _revised(inner, known, progress, limits, together.entering())
        return replace(policy, state=together._replace(inner=changed.state))
    return _revised(policy, known, progress, limits, np.empty(0, dtype=np.int64))


def _revised(
    policy: Policy,
    known: PolicyInput,
    progress: Progress,
    limits: EngineLimits,
    entering: NDArray[np.int64],
) -> Policy:
    """As `revise`; ``entering`` are further answers of a request that the engine was given."""
    old = policy.state
    waiting = np.flatnonzero(~progress.admitted)
    if not isinstance(old, BlendState) or not len(waiting):
        return policy  # A plain queue does not look at lengths.
    options = BlendOptions(**policy.parameters)  # type: ignore[arg-type]
    rest = known.take(waiting)
    part = blend_state(rest, arrange(rest, limits, options), limits, options)
    memory_side = old.memory_side.copy()
    memory_side[waiting] = part.memory_side
    whole = blend_state(known, arrange(known, limits, options), limits, options)
    now = part.now.copy().view(np.recarray)
    for name in _KEPT:
        now[name] = old.now[name]
    state = whole._replace(
        parameters=part.parameters,
        compute_order=_first(entering, waiting[part.compute_order]),
        memory_order=_first(entering, waiting[part.memory_order]),
        memory_side=memory_side,
        output_tokens=known.output_tokens.copy(),
        started=old.started,
        generated=old.generated,
        now=now,
    )
    now[0].bucket = int(now[0].clock) // state.parameters.bucket_steps
    unfinished = np.flatnonzero(progress.admitted & ~progress.finished)
    is_running = np.zeros(len(known), dtype=np.bool_)
    is_running[progress.running] = True
    _expect_all(state, unfinished, is_running)
    _enter_all(state, progress.running)
    side = policy.side
    side[waiting] = part.memory_side
    return replace(policy, state=state, side=side)


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
        state.output_tokens[request] = max(state.output_tokens[request], elapsed)
        now.tokens_left += state.output_tokens[request] - elapsed
        expect_reads(state, request)
        now.reads_expected[int(state.memory_side[request])] += state.likely_reads[request]


@kernel
def _enter_all(state: BlendState, running: NDArray[np.int64]) -> None:
    """Enter the running requests among those that hold KV tokens."""
    for request in running:
        enter(state, request)
