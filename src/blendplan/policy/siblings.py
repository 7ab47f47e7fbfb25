"""`keep_together`: a policy under which the sequences of one request are admitted in a row.

An engine is given a request with several answers as a whole: when its first sequence has been
admitted, the others are next in the engine's own queue, whatever else a policy would like to admit.
So once a policy has chosen a request, its further sequences are what `next_request` offers until
all of them are admitted.

A policy reads its orders from either end, so it may choose the last sequence of a request before
the first. Outside, the first one always goes first: a policy's own number of a sequence is kept
beside it. That changes nothing for the policy, which knows the same of all of them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.kernels.scalars import scalars
from blendplan.policy.known import PolicyInput
from blendplan.policy.progress import Progress
from blendplan.policy.state_machine import Policy, Revise, Transitions

_NOW = np.dtype([("next", "i8"), ("chosen", "i8")])


class SiblingState(NamedTuple):
    """State over n sequences.

    Attributes:
        inner: state of the policy.
        first, last: first and last sequence of the same request; int64 [n].
        number: the policy's own number of each sequence that was admitted, else -1; int64 [n].
        side: side of each sequence, as of the policy; int8 [n].
        now: ``next``, the sequence that must be next, -1 for none; ``chosen``, the one that the
            policy chose last, by its own number; one record.
    """

    inner: Any
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    number: NDArray[np.int64]
    side: NDArray[np.int8]
    now: NDArray[np.void]

    def entering(self) -> NDArray[np.int64]:
        """Sequences of an admitted request that come before all others; int64."""
        place = int(self.now[0].next)
        return np.arange(place, self.last[place] + 1 if place >= 0 else place)


def keep_together(policy: Policy, request: NDArray[np.int64] | None) -> Policy:
    """The policy with the sequences of one request in a row.

    Args:
        policy: a fresh one over n sequences, with those of one request together in its orders.
        request: number of the request of each sequence, ascending; int64 [n]. With None, every
            request is one sequence, and the policy stays as it is.
    """
    if request is None:
        return policy
    first, last = _spans(request)
    state = SiblingState(
        inner=policy.state,
        first=first,
        last=last,
        number=np.full(len(request), -1, dtype=np.int64),
        side=policy.side,
        now=scalars(_NOW, next=-1, chosen=-1),
    )
    return replace(
        policy,
        transitions=_together(policy.transitions),
        state=state,
        revise=None if policy.revise is None else _revising(policy.revise, policy.transitions),
        upcoming=None if policy.upcoming is None else _upcoming(policy.upcoming),
    )


def _upcoming(
    inner: Callable[[Any, int], NDArray[np.int64]],
) -> Callable[[Any, int], NDArray[np.int64]]:
    """What is next, each request with all of its sequences that are to be admitted."""

    def upcoming(state: SiblingState, count: int) -> NDArray[np.int64]:
        firsts = state.first[inner(state.inner, count)]
        _, places = np.unique(firsts, return_index=True)
        firsts = firsts[np.sort(places)]
        firsts = firsts[state.number[firsts] < 0]
        spans = [np.arange(first, state.last[first] + 1) for first in firsts.tolist()]
        return np.concatenate([state.entering(), *spans])

    return upcoming


def _revising(inner: Revise, transitions: Transitions) -> Revise:
    """How such a policy goes over to better predictions: as the one within it does."""

    def revise(
        policy: Policy,
        known: PolicyInput,
        progress: Progress,
        limits: EngineLimits,
        kept: NDArray[np.int64] | None = None,
    ) -> Policy:
        state = policy.state
        within = replace(policy, transitions=transitions, state=state.inner, revise=inner)
        if kept is not None:
            assert known.request is not None
            state = _carried(state, known.request, kept)
        progress = replace(progress, entering=state.entering())
        changed = inner(within, known, progress, limits, kept)
        return replace(
            policy, side=changed.side, state=state._replace(inner=changed.state, side=changed.side)
        )

    return revise


def _carried(
    state: SiblingState, request: NDArray[np.int64], kept: NDArray[np.int64]
) -> SiblingState:
    """The state over other requests, all sequences of a request kept or none."""
    place = np.full(len(state.first), -1, dtype=np.int64)
    place[kept[kept >= 0]] = np.flatnonzero(kept >= 0)
    number = np.full(len(kept), -1, dtype=np.int64)
    old = state.number[kept]
    known = (kept >= 0) & (old >= 0)
    number[known] = place[old[known]]
    now = state.now.copy().view(np.recarray)
    for name in ("next", "chosen"):
        now[name] = place[state.now[name]] if state.now[0][name] >= 0 else -1
    first, last = _spans(request)
    return state._replace(first=first, last=last, number=number, now=now)


def _spans(request: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last sequence of the request of each sequence; int64 [n] each."""
    first = np.searchsorted(request, request, side="left")
    last = np.searchsorted(request, request, side="right") - 1
    return first.astype(np.int64, copy=False), last.astype(np.int64, copy=False)


@cache
def _together(inner: Transitions) -> Transitions:
    """The kernels around those of a policy."""
    inner_begin_step, inner_next, inner_admitted, inner_preempted, inner_finished, inner_shares = (
        inner
    )

    @kernel
    def begin_step(state: SiblingState, running: int, used_tokens: float) -> int:
        return inner_begin_step(state.inner, running, used_tokens)

    @kernel
    def next_request(state: SiblingState, running: int) -> int:
        now = state.now[0]
        if now.next >= 0:
            return now.next
        chosen = inner_next(state.inner, running)
        # One that has been admitted would run twice: its policy does not keep requests together.
        if chosen < 0 or state.number[state.first[chosen]] >= 0:
            return -1
        now.chosen = chosen
        return state.first[chosen]

    @kernel
    def admitted(state: SiblingState, request: int) -> None:
        if state.number[request] < 0:
            now = state.now[0]
            first, last = state.first[request], state.last[request]
            if request == first:
                from_last = now.chosen == last and last > first
                state.number[first] = last if from_last else first
            elif state.number[first] == first:
                state.number[request] = request
            else:
                state.number[request] = last - (request - first)
            state.side[state.number[request]] = state.side[state.number[first]]
            now.next = request + 1 if request < last else -1
        inner_admitted(state.inner, state.number[request])

    @kernel
    def preempted(state: SiblingState, request: int) -> None:
        inner_preempted(state.inner, state.number[request])

    @kernel
    def finished(state: SiblingState, request: int) -> None:
        inner_finished(state.inner, state.number[request])

    @kernel
    def shares(state: SiblingState) -> tuple[float, float]:
        return inner_shares(state.inner)

    return Transitions(begin_step, next_request, admitted, preempted, finished, shares)
