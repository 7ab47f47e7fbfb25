"""What a policy is: a state of its own, and one kernel for each event.

Whoever runs the steps calls

    begin_step      once per step; returns the prefill tokens allowed in it, beside a token of each
                    running request
    next_request    which waiting request to try next, -1 for none; changes nothing that counts
    admitted        that request, or a preempted one again, was given room
    preempted       it lost its room and waits in the engine
    finished        it is done

and asks `shares` for the memory partition in force. A policy knows predictions only: that a request
really fits is checked, and guaranteed, by the engine. The simulated engine compiles these kernels
into its step loop, so only those of the policy at hand are ever compiled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.progress import Progress

COMPUTE, MEMORY = 0, 1
SIDES = ("compute", "memory")

Parameters = Mapping[str, float | int | str]


class Transitions(NamedTuple):
    """The kernels of a policy; ``state`` is its own named tuple of arrays.

    Attributes:
        begin_step: (state, running requests, KV tokens that they hold) -> prefill tokens beside
            one token of each running request; one that is in the middle of its prompt leaves its
            token to prefill, so a step that has enough to do has as many tokens as was meant.
        next_request: (state, running requests) -> request or -1.
        admitted, preempted, finished: (state, request) -> None.
        shares: (state) -> KV tokens for the compute and for the memory side.
    """

    begin_step: Callable[[Any, int, float], int]
    next_request: Callable[[Any, int], int]
    admitted: Callable[[Any, int], None]
    preempted: Callable[[Any, int], None]
    finished: Callable[[Any, int], None]
    shares: Callable[[Any], tuple[float, float]]


@dataclass(frozen=True)
class Policy:
    """A policy over n requests before its first step.

    The state's arrays change as it runs: make one policy per run.

    Attributes:
        name: as it was requested.
        transitions: its kernels.
        state: what they change.
        side: COMPUTE or MEMORY, per request, final once a request is admitted; int8 [n].
        parameters: what it was made with; `PolicyKind.make` takes them back.
        revise: how it goes over to better predictions while it runs; None where it does not look
            at lengths.
        upcoming: (state, k) -> waiting requests that may be next, about k from the head of each of
            its orders, the nearest first, so that they can be made ready; int64. None where it
            cannot tell.
    """

    name: str
    transitions: Transitions
    state: Any
    side: NDArray[np.int8]
    parameters: Parameters
    revise: "Revise | None" = None
    upcoming: Callable[[Any, int], NDArray[np.int64]] | None = None


class Revise(Protocol):
    """How a policy goes on with what is known by now."""

    def __call__(
        self,
        policy: Policy,
        known: PolicyInput,
        progress: Progress,
        limits: EngineLimits,
        kept: NDArray[np.int64] | None = None,
    ) -> Policy:
        """The policy to go on with; requests that wait may be arranged anew.

        The same arguments give the same policy. Its transitions are those of ``policy``.

        Args:
            policy: as far as it has come; not used any more.
            known: what is known of n requests by now.
            progress: of the run.
            limits: of the engine.
            kept: where the requests are no longer those of ``policy``, the number that each had
                there, -1 of a new one, which waits; all that run or have some of their answers
                running must be kept. int64 [n].
        """


class Make(Protocol):
    """How a policy is made."""

    def __call__(
        self, known: PolicyInput, limits: EngineLimits, *, seed: int, parameters: Parameters
    ) -> Policy:
        """A fresh policy.

        The same arguments give the same policy, on every machine: a plan is replayed under the
        policy that is made from what the plan says of its requests.

        Args:
            known: what is known of n requests.
            limits: of the engine.
            seed: for policies that draw random numbers.
            parameters: of this policy's own; defaults for those that are left out.
        """


class Candidate(NamedTuple):
    """Parameters to try.

    Attributes:
        parameters: of the policy.
        handicap: factor on the simulated makespan, for what must win by a margin.
    """

    parameters: Parameters
    handicap: float = 1.0


def no_choice(effort: int, uncertain: bool, prices: StepPrices) -> Sequence[Candidate]:
    """One candidate, the defaults: for policies without parameters."""
    return [Candidate({})]


@dataclass(frozen=True)
class PolicyKind:
    """A policy as the registry knows it.

    Attributes:
        summary: what it does, in a few words.
        make: a fresh one.
        candidates: parameters to choose from by simulation, the default first: (effort from 0 to
            2, whether output lengths are uncertain, prices of a step) -> candidates.
    """

    summary: str
    make: Make
    candidates: Callable[[int, bool, StepPrices], Sequence[Candidate]] = no_choice


def sides_by_density(known: PolicyInput) -> NDArray[np.int8]:
    """Side of each request by its density against that of the whole; int8 [n]."""
    compute_heavy = known.density >= known.root_density
    return np.where(compute_heavy, COMPUTE, MEMORY).astype(np.int8)


def in_turn(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Requests of two orders in turn, those of the longer one alone at the end; int64."""
    both = min(len(first), len(second))
    pairs = np.column_stack([first[:both], second[:both]]).ravel()
    return np.concatenate([pairs, first[both:], second[both:]])
