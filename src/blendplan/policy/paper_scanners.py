"""The paper's dual scanner (5.3, algorithm 3).

Two ends of the density-sorted order are read at once, the compute-heavy left one and the
memory-heavy right one, each kept inside its share of the KV cache and of the prefill tokens.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.kernels.scalars import scalars
from blendplan.policy.known import PolicyInput
from blendplan.policy.state_machine import (
    COMPUTE,
    MEMORY,
    Parameters,
    Policy,
    PolicyKind,
    Transitions,
    sides_by_density,
)

_NOW = np.dtype([("left", "i8"), ("right", "i8")])
_SIDE = np.dtype(
    [("share_tokens", "f8"), ("held_tokens", "f8"), ("credit_tokens", "f8"), ("holders", "i8")]
)


class ScannerState(NamedTuple):
    """State of both scanners over n requests.

    Attributes:
        order: requests by density, compute-heavy first; int64 [n].
        now: ``left`` and ``right``, places in ``order`` of the next request of either scanner; one
            record.
        sides: of the compute and of the memory side ``share_tokens``, KV tokens that it may hold;
            ``held_tokens``, that it is expected to hold on average; ``credit_tokens``, prefill
            tokens that it may admit; ``holders``, its running requests; two records.
        side: COMPUTE or MEMORY, per request, set when a scanner offers it; int8 [n].
        held_tokens: KV tokens that each request holds on average, expected; float64 [n].
        new_prompt_tokens: prompt tokens it must compute, its share of a common prefix counted;
            float64 [n].
        output_tokens: expected output length; float64 [n].
        density: compute seconds per memory second, prefix sharing counted; float64 [n].
        kv_tokens, root_density: capacity M and density of the whole workload.
        max_num_batched_tokens: most tokens of one step.
    """

    order: NDArray[np.int64]
    now: NDArray[np.void]
    sides: NDArray[np.void]
    side: NDArray[np.int8]
    held_tokens: NDArray[np.float64]
    new_prompt_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    density: NDArray[np.float64]
    kv_tokens: float
    root_density: float
    max_num_batched_tokens: int


@kernel
def _begin_step(state: ScannerState, running: int, used_tokens: float) -> int:
    now = state.now[0]
    if now.left > now.right:
        return state.max_num_batched_tokens
    left, right = state.order[now.left], state.order[now.right]
    shares = memory_partition(
        state.kv_tokens, state.root_density, state.density[left], state.density[right]
    )
    budget = 0.0
    for side, request in ((COMPUTE, left), (MEMORY, right)):
        mine = state.sides[side]
        mine.share_tokens = shares[side]
        output = state.output_tokens[request]
        flow = prefill_budget_tokens(
            mine.share_tokens,
            state.held_tokens[request] - output / 2,
            state.new_prompt_tokens[request],
            output,
        )
        budget += flow
        # A side may fall behind by at most one request, or one step's flow where that is more.
        cap = max(flow, state.new_prompt_tokens[request])
        mine.credit_tokens = min(mine.credit_tokens + flow, cap)
    if running == 0:
        return state.max_num_batched_tokens
    return min(state.max_num_batched_tokens, max(1, int(np.ceil(budget))))


@kernel
def _next_request(state: ScannerState, running: int) -> int:
    now = state.now[0]
    if now.left > now.right:
        return -1
    left, right = state.order[now.left], state.order[now.right]
    left_fits = _side_has_room(state, COMPUTE, left)
    right_fits = _side_has_room(state, MEMORY, right)
    if left_fits and right_fits:
        # Fill both sides evenly, so that neither waits for the other at the start.
        compute, memory = state.sides[COMPUTE], state.sides[MEMORY]
        right_fits = (
            memory.held_tokens * compute.share_tokens <= compute.held_tokens * memory.share_tokens
        )
    if right_fits:
        state.side[right] = MEMORY
        return right
    if left_fits or running == 0:
        state.side[left] = COMPUTE
        return left
    return -1


@kernel
def _side_has_room(state: ScannerState, side: int, request: int) -> bool:
    mine = state.sides[side]
    if mine.credit_tokens <= 0.0:
        return False
    # An empty side takes a request of any size: a share smaller than one request must not starve.
    if mine.holders == 0:
        return True
    return mine.held_tokens + state.held_tokens[request] <= mine.share_tokens


@kernel
def _admitted(state: ScannerState, request: int) -> None:
    now = state.now[0]
    side = state.side[request]
    mine = state.sides[side]
    if now.left <= now.right:
        if side == COMPUTE and state.order[now.left] == request:
            now.left += 1
            mine.credit_tokens -= state.new_prompt_tokens[request]
        elif side == MEMORY and state.order[now.right] == request:
            now.right -= 1
            mine.credit_tokens -= state.new_prompt_tokens[request]
    mine.held_tokens += state.held_tokens[request]
    mine.holders += 1


@kernel
def _released(state: ScannerState, request: int) -> None:
    """It gave its KV cache back: it is done, or was preempted."""
    mine = state.sides[state.side[request]]
    mine.holders -= 1
    mine.held_tokens -= state.held_tokens[request]
    if mine.holders == 0:
        # Rounding must not be left over as use.
        mine.held_tokens = 0.0


@kernel
def _shares(state: ScannerState) -> tuple[float, float]:
    return state.sides[COMPUTE].share_tokens, state.sides[MEMORY].share_tokens


@kernel
def memory_partition(
    kv_tokens: float, root_density: float, left_density: float, right_density: float
) -> tuple[float, float]:
    """KV tokens for the compute-heavy (left) and the memory-heavy (right) scanner.

    Solves M_L + M_R = M and M_L rho_L + M_R rho_R = M rho_root, so that the requests resident
    together have the density of the whole workload. Where no mix of the two has that density, the
    side that is nearer gets all of M; two equal densities share it.

    Args:
        kv_tokens: M, in any unit of memory.
        root_density: rho_root, compute seconds per memory second of the whole workload.
        left_density, right_density: the same for the two current requests, left >= right.

    Returns:
        (M_L, M_R) in the unit of ``kv_tokens``.
    """
    if left_density == right_density:
        return kv_tokens / 2, kv_tokens / 2
    share = (root_density - right_density) / (left_density - right_density)
    left = kv_tokens * min(1.0, max(0.0, share))
    return left, kv_tokens - left


@kernel
def prefill_budget_tokens(
    side_tokens: float, prompt_tokens: float, new_prompt_tokens: float, output_tokens: float
) -> float:
    """Prefill tokens per step that keep one side of the partition full.

    A side of M tokens holds N = M / (p + d/2) requests on average; one in d of them finishes per
    step and is replaced, so C = N p / d (5.3). Only tokens that miss the prefix cache are
    computed, so the p of the flow is the new prompt tokens.

    Args:
        side_tokens: M of this side in KV tokens.
        prompt_tokens: KV tokens that a request of this side holds for its prompt.
        new_prompt_tokens: prompt tokens that it must compute.
        output_tokens: d, expected.
    """
    return side_tokens / (prompt_tokens + output_tokens / 2) * new_prompt_tokens / output_tokens


SCANNERS = Transitions(_begin_step, _next_request, _admitted, _released, _released, _shares)


def _make(known: PolicyInput, limits: EngineLimits, *, seed: int, parameters: Parameters) -> Policy:
    sides = np.zeros(2, _SIDE).view(np.recarray)
    sides.share_tokens[COMPUTE] = limits.kv_tokens
    state = ScannerState(
        order=np.ascontiguousarray(known.by_density, dtype=np.int64),
        now=scalars(_NOW, right=len(known) - 1),
        sides=sides,
        side=sides_by_density(known),
        held_tokens=known.new_prompt_tokens + known.output_tokens / 2,
        new_prompt_tokens=known.new_prompt_tokens,
        output_tokens=known.output_tokens,
        density=known.density,
        kv_tokens=float(limits.kv_tokens),
        root_density=known.root_density,
        max_num_batched_tokens=limits.max_num_batched_tokens,
    )
    return Policy("blendserve", SCANNERS, state, state.side, {})


BLENDSERVE = PolicyKind("the paper's two scanners over the density-sorted order", _make)
