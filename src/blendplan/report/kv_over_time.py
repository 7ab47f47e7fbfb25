"""`kv_over_time`: who holds the KV cache over a run."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.policy.holding import Holding
from blendplan.simulator.simulate import SimulatedRun

# Points of the pictures: more than a chart has pixels to show.
_POINTS = 240

_Column = NDArray[np.float64]


@dataclass(frozen=True)
class KvOverTime:
    """Who holds the KV cache over the run of one policy.

    Attributes:
        time_s: moments from the start to the end; float64 [k].
        compute_tokens, memory_tokens: KV tokens (slots, where layers keep different ones) held by
            requests of the compute and of the memory side; float64 [k].
        share_tokens: those that the partition leaves to the compute side; float64 [k], empty for a
            policy without a partition.
    """

    time_s: _Column
    compute_tokens: _Column
    memory_tokens: _Column
    share_tokens: _Column


def kv_over_time(
    run: SimulatedRun,
    prompts: NDArray[np.int32],
    outputs: NDArray[np.int32],
    kv_tokens: int,
    holding: Holding,
) -> KvOverTime:
    """KV tokens by side, the context of each request growing evenly from its start to its end.

    Where all tokens are kept, a prompt counts without what it found in the cache: that belongs to
    another request. Where even growth adds up to more than there is, all are scaled down to the
    capacity.

    Args:
        run: of n requests.
        prompts, outputs: tokens of each; int32 [n].
        kv_tokens: capacity.
        holding: what a request holds by its context.
    """
    time_s = np.linspace(0.0, run.makespan_s, _POINTS)
    compute, memory = np.zeros_like(time_s), np.zeros_like(time_s)
    for piece in _pieces(run, prompts, outputs, holding):
        for side, held in enumerate((compute, memory)):
            held += _held(time_s, *(column[run.side == side] for column in piece))
    fits = kv_tokens / np.maximum(compute + memory, kv_tokens)
    compute, memory = compute * fits, memory * fits
    # A policy without a partition gives everything to one side.
    if not (run.share_tokens.min(axis=1, initial=np.iinfo(np.int64).max) > 0).any():
        return KvOverTime(time_s, compute, memory, np.empty(0))
    share = run.share_tokens[run.admission, 0].astype(np.float64)
    latest = np.searchsorted(run.start_s[run.admission], time_s, side="right") - 1
    return KvOverTime(time_s, compute, memory, share[np.maximum(latest, 0)])


def _pieces(
    run: SimulatedRun, prompts: NDArray[np.int32], outputs: NDArray[np.int32], holding: Holding
) -> Iterator[tuple[_Column, _Column, _Column, _Column]]:
    """Straight pieces of what each request holds: start and end, what at first, growth a second."""
    start_s, finish_s = run.start_s, run.finish_s
    rate = outputs / np.maximum(finish_s - start_s, 1e-12)
    private = (prompts - run.cached_tokens).astype(np.float64)
    first = holding.growth * private + holding.constant
    yield start_s, finish_s, first, holding.growth * rate
    # A chunk is half full on average: see `Holding.level`.
    halves = [((tokens + 1) / 2, slots) for tokens, slots in holding.chunks]
    for tokens, slots in (*holding.windows, *halves):
        missing = np.maximum(tokens - prompts, 0.0)
        full_s = np.minimum(start_s + missing / np.maximum(rate, 1e-12), finish_s)
        yield start_s, full_s, slots * np.minimum(prompts, tokens), slots * rate
        yield full_s, finish_s, np.full_like(full_s, slots * tokens), np.zeros_like(full_s)


def _held(
    time_s: _Column, start_s: _Column, finish_s: _Column, first: _Column, growth: _Column
) -> _Column:
    """Sum over the pieces at each moment of first + growth * time since their start."""
    constant = first - growth * start_s

    def begun(moments: _Column) -> _Column:
        order = np.argsort(moments, kind="stable")
        count = np.searchsorted(moments[order], time_s, side="right")
        still = np.concatenate(([0.0], np.cumsum(constant[order])))[count]
        slope = np.concatenate(([0.0], np.cumsum(growth[order])))[count]
        return still + slope * time_s

    return np.maximum(begun(start_s) - begun(finish_s), 0.0)
