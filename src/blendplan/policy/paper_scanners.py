"""The paper's dual scanner (5.3, algorithm 3).

Two ends of the density-sorted order are read at once, the compute-heavy left one and the
memory-heavy right one, each kept inside its share of the KV cache and refilled at the pace at which
its requests end. The paper's rules hold wherever they say something. Where they do not:

- Both current requests are denser than the whole, or both less dense (real leaf order is not quite
  sorted): no partition balances them. Then either side may use all that the other does not hold.
- The density to reach is that of the requests that still wait. At the start this is the paper's,
  that of the whole; later it makes up for what the start, or a wrong prediction, took too much of.
- C = N p / d keeps a full side full, but would fill an empty one no faster than its requests end.
  Up to half of its share a side fills without it. Requests that start together also grow together,
  to at most twice their average: half a share of them outgrows no share.
- The requests of a side differ. Each is charged by its own p and d, and the prefill tokens of a
  step are the sum of what each running request calls for, not N times that of the one at the
  scanner, which may have ten new prompt tokens where the next has five thousand.
- A step smaller than what its weights are worth, or with the KV cache nearly empty, is never
  metered.
"""

from typing import Any, NamedTuple

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
    in_turn,
    sides_by_density,
)

# Part of its share that a side fills at once, and from which on it keeps to its pace.
FILLED = 0.5
# Part of the KV cache in use below which steps take all the prefill tokens that they can.
NEARLY_EMPTY = 0.25
# Tokens that sums of fractions may be off by.
_ROUNDING = 1e-6

_NOW = np.dtype([("left", "i8"), ("right", "i8")])
_SIDE = np.dtype(
    [
        ("share_tokens", "f8"),
        ("held_tokens", "f8"),
        ("prefill_tokens", "f8"),
        ("credit", "f8"),
        ("holders", "i8"),
    ]
)


class ScannerState(NamedTuple):
    """State of both scanners over n requests.

    Attributes:
        order: requests by density, compute-heavy first; int64 [n].
        now: ``left`` and ``right``, places in ``order`` of the next request of either scanner; one
            record.
        sides: of the compute and of the memory side ``share_tokens``, KV tokens that it may hold;
            ``held_tokens``, that it is expected to hold on average; ``prefill_tokens``, new prompt
            tokens per step that replace what of it ends; ``credit``, what it may admit, in KV
            tokens times steps; ``holders``, its running requests; two records.
        side: COMPUTE or MEMORY, per request, set when a scanner offers it; int8 [n].
        held_tokens: KV tokens that each request holds on average, expected; float64 [n].
        new_prompt_tokens: prompt tokens it must compute, its share of a common prefix counted;
            float64 [n].
        output_tokens: expected output length; float64 [n].
        density: compute seconds per memory second, prefix sharing counted; float64 [n].
        compute_before, memory_before: compute and memory work of the requests before each place of
            ``order``, in units whose ratio is a density; float64 [n + 1].
        kv_tokens: capacity M.
        least_tokens: tokens that a step needs to be worth its weights.
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
    compute_before: NDArray[np.float64]
    memory_before: NDArray[np.float64]
    kv_tokens: float
    least_tokens: int
    max_num_batched_tokens: int


@kernel
def _begin_step(state: ScannerState, running: int, used_tokens: float) -> int:
    now = state.now[0]
    if now.left > now.right:
        return state.max_num_batched_tokens
    left, right = state.order[now.left], state.order[now.right]
    _divide(state, left, right)
    budget = 0.0
    for side, request in ((COMPUTE, left), (MEMORY, right)):
        mine = state.sides[side]
        # A side may fall behind by at most one request, or one step where that is more.
        cap = max(mine.share_tokens, _occupancy(state, request))
        mine.credit = min(mine.credit + mine.share_tokens, cap)
        if mine.holders > 0:
            budget += mine.prefill_tokens * mine.share_tokens / mine.held_tokens
        else:
            output = state.output_tokens[request]
            budget += prefill_budget_tokens(
                mine.share_tokens,
                state.held_tokens[request] - output / 2,
                state.new_prompt_tokens[request],
                output,
            )
    if running == 0 or used_tokens < NEARLY_EMPTY * state.kv_tokens:
        return state.max_num_batched_tokens
    budget = max(budget, float(state.least_tokens - running))
    budget = min(budget, float(state.max_num_batched_tokens))
    return max(1, int(np.ceil(budget - _ROUNDING)))


@kernel
def _divide(state: ScannerState, left: int, right: int) -> None:
    """Set both shares for the two current requests."""
    now = state.now[0]
    first, end = now.left, now.right + 1
    compute_work = state.compute_before[end] - state.compute_before[first]
    memory_work = state.memory_before[end] - state.memory_before[first]
    target = compute_work / memory_work
    compute, memory = state.sides[COMPUTE], state.sides[MEMORY]
    above = state.density[left] - target, state.density[right] - target
    if above[0] * above[1] > 0.0 or above[0] == above[1]:
        free = max(0.0, state.kv_tokens - compute.held_tokens - memory.held_tokens)
        compute.share_tokens = compute.held_tokens + free
        memory.share_tokens = memory.held_tokens + free
    else:
        compute.share_tokens, memory.share_tokens = memory_partition(
            state.kv_tokens, target, state.density[left], state.density[right]
        )


@kernel
def _occupancy(state: ScannerState, request: int) -> float:
    """KV tokens times steps.

    In a side of M tokens there is room for one such request every (p + d/2) d / M steps, which is
    p / C with C = N p / d and N = M / (p + d/2).
    """
    return state.held_tokens[request] * state.output_tokens[request]


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
    mine, other = state.sides[side], state.sides[1 - side]
    if mine.credit <= 0.0 and not _fills(mine):
        return False
    # An empty side takes a request of any size: a share smaller than one request must not starve.
    if mine.holders == 0:
        return True
    after = mine.held_tokens + state.held_tokens[request]
    return after <= mine.share_tokens and after + other.held_tokens <= state.kv_tokens


@kernel
def _fills(mine: Any) -> bool:
    """Whether a side is still so empty that it does not keep to its pace."""
    return mine.held_tokens < FILLED * mine.share_tokens


@kernel
def _admitted(state: ScannerState, request: int) -> None:
    now = state.now[0]
    side = state.side[request]
    mine = state.sides[side]
    price = 0.0 if _fills(mine) else _occupancy(state, request)
    if now.left <= now.right:
        if side == COMPUTE and state.order[now.left] == request:
            now.left += 1
            mine.credit -= price
        elif side == MEMORY and state.order[now.right] == request:
            now.right -= 1
            mine.credit -= price
    mine.held_tokens += state.held_tokens[request]
    mine.prefill_tokens += state.new_prompt_tokens[request] / state.output_tokens[request]
    mine.holders += 1


@kernel
def _released(state: ScannerState, request: int) -> None:
    """It gave its KV cache back: it is done, or was preempted."""
    mine = state.sides[state.side[request]]
    mine.holders -= 1
    mine.held_tokens -= state.held_tokens[request]
    mine.prefill_tokens -= state.new_prompt_tokens[request] / state.output_tokens[request]
    if mine.holders == 0:
        # Rounding must not be left over as use.
        mine.held_tokens = 0.0
        mine.prefill_tokens = 0.0


@kernel
def _shares(state: ScannerState) -> tuple[float, float]:
    left, right = state.sides[COMPUTE].share_tokens, state.sides[MEMORY].share_tokens
    # What either side may use counts half for each.
    both = max(0.0, left + right - state.kv_tokens)
    left = min(state.kv_tokens, max(0.0, left - both / 2))
    return left, min(right, state.kv_tokens - left)


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


def _upcoming(state: ScannerState, count: int) -> NDArray[np.int64]:
    """What either scanner reads next, in turn; int64."""
    now = state.now[0]
    ahead = state.order[now.left : now.right + 1]
    if len(ahead) <= 2 * count:
        half = (len(ahead) + 1) // 2
        return in_turn(ahead[:half], ahead[half:][::-1])
    return in_turn(ahead[:count], ahead[-count:][::-1])


SCANNERS = Transitions(_begin_step, _next_request, _admitted, _released, _released, _shares)


def _make(known: PolicyInput, limits: EngineLimits, *, seed: int, parameters: Parameters) -> Policy:
    sides = np.zeros(2, _SIDE).view(np.recarray)
    sides.share_tokens[COMPUTE] = limits.kv_tokens
    order = np.ascontiguousarray(known.by_density, dtype=np.int64)
    compute_before, memory_before = _work_before(known, order)
    state = ScannerState(
        order=order,
        now=scalars(_NOW, right=len(known) - 1),
        sides=sides,
        side=sides_by_density(known),
        held_tokens=known.held_tokens + known.holding.growth * known.output_tokens / 2,
        new_prompt_tokens=known.new_prompt_tokens,
        output_tokens=known.output_tokens,
        density=known.density,
        compute_before=compute_before,
        memory_before=memory_before,
        kv_tokens=float(limits.kv_tokens),
        least_tokens=known.prices.least_tokens,
        max_num_batched_tokens=limits.max_num_batched_tokens,
    )
    return Policy("blendserve", SCANNERS, state, state.side, {}, upcoming=_upcoming)


def _work_before(
    known: PolicyInput, order: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute and memory work of the first 0, 1, ... n requests; float64 [n + 1] each.

    All of it has the density of the root.
    """
    memory = known.reads[order]
    compute_before = np.concatenate([[0.0], np.cumsum(known.density[order] * memory)])
    memory_before = np.concatenate([[0.0], np.cumsum(memory)])
    if len(order):
        compute_before *= known.root_density * memory_before[-1] / compute_before[-1]
    return compute_before, memory_before


BLENDSERVE = PolicyKind("the paper's two scanners over the density-sorted order", _make)
