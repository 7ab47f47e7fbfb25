"""Queues: requests in a fixed order, whatever the engine has room for."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.kernels.scalars import scalars
from blendplan.policy.known import PolicyInput
from blendplan.policy.state_machine import (
    Make,
    Parameters,
    Policy,
    PolicyKind,
    Transitions,
    sides_by_density,
)

_NOW = np.dtype([("next", "i8"), ("clock", "i8")])


class QueueState(NamedTuple):
    """State of a queue over n requests.

    Attributes:
        order: requests in order of admission; int64 [n].
        now: ``next``, place in ``order`` of the next request, and ``clock`` in steps; one record.
        kv_tokens: capacity of the KV cache, which is not divided.
        max_num_batched_tokens: most tokens of one step.
        burst_steps: requests are admitted in one of so many steps; in every one with 1.
    """

    order: NDArray[np.int64]
    now: NDArray[np.void]
    kv_tokens: float
    max_num_batched_tokens: int
    burst_steps: int


@kernel
def _begin_step(state: QueueState, running: int, used_tokens: float) -> int:
    state.now[0].clock += 1
    return state.max_num_batched_tokens


@kernel
def _next_request(state: QueueState, running: int) -> int:
    now = state.now[0]
    if running > 0 and now.clock % state.burst_steps != 0:
        return -1
    place = now.next
    return state.order[place] if place < len(state.order) else -1


@kernel
def _admitted(state: QueueState, request: int) -> None:
    now = state.now[0]
    if now.next < len(state.order) and state.order[now.next] == request:
        now.next += 1


@kernel
def _released(state: QueueState, request: int) -> None:
    """A queue keeps no account of who holds what."""


@kernel
def _shares(state: QueueState) -> tuple[float, float]:
    return state.kv_tokens, 0.0


def _upcoming(state: QueueState, count: int) -> NDArray[np.int64]:
    place = int(state.now[0].next)
    return state.order[place : place + count]


QUEUE = Transitions(_begin_step, _next_request, _admitted, _released, _released, _shares)


def queue_policy(
    name: str,
    order: NDArray[np.int64],
    limits: EngineLimits,
    side: NDArray[np.int8],
    parameters: Parameters,
) -> Policy:
    """A policy that admits in a given order.

    Args:
        name: of the policy.
        order: all n requests, each once; int64 [n].
        limits: of the engine.
        side: COMPUTE or MEMORY, for the plan to say; int8 [n].
        parameters: what the order was made with.
    """
    state = QueueState(
        order=np.ascontiguousarray(order, dtype=np.int64),
        now=scalars(_NOW),
        kv_tokens=float(limits.kv_tokens),
        max_num_batched_tokens=limits.max_num_batched_tokens,
        burst_steps=int(parameters.get("burst_steps", 1)),
    )
    return Policy(name, QUEUE, state, side, parameters, upcoming=_upcoming)


def plain_order(name: str, known: PolicyInput, seed: int) -> NDArray[np.int64]:
    """All requests in the order ``fcfs``, ``random`` (by the seed) or ``dfs``; int64 [n]."""
    if name == "dfs":
        return known.depth_first
    if name == "fcfs":
        return np.arange(len(known))
    draws = np.random.default_rng(seed)
    if known.request is None:
        return draws.permutation(len(known))
    # The answers of a request stay together.
    place = draws.permutation(int(known.request[-1]) + 1)
    return np.argsort(place[known.request], kind="stable")


def _plain(name: str, seeded: bool = False) -> Make:
    """How the policy of that order is made."""

    def make(
        known: PolicyInput, limits: EngineLimits, *, seed: int, parameters: Parameters
    ) -> Policy:
        seed = int(parameters.get("seed", seed))
        order = plain_order(name, known, seed)
        return queue_policy(
            name, order, limits, sides_by_density(known), {"seed": seed} if seeded else {}
        )

    return make


FCFS = PolicyKind("the order of the request file", _plain("fcfs"))
RANDOM = PolicyKind("a seeded shuffle, the paper's Balance", _plain("random", seeded=True))
DFS = PolicyKind("depth-first order of the prefix tree, what engines do at best", _plain("dfs"))
