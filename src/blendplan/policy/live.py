"""`LivePolicy`: a policy for whoever runs a real engine."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.kernels.kernel import kernel
from blendplan.policy.holding import GROWS_BY_ONE, Holding
from blendplan.policy.known import PolicyInput
from blendplan.policy.progress import Progress
from blendplan.policy.state_machine import Policy, Transitions

WAITING, RUNNING, PREEMPTED, DONE = range(4)
_WORDS = ("waiting", "running", "preempted", "done")


class LivePolicy:
    """Says what to admit now, given what a running engine reports.

    The state machine is the one that the simulated engine drives. Requests are named by their row
    in the plan. An engine that asks inside its scheduler calls `begin_step`, then `next_row` and
    `admitted` until it has no more room; one that takes the requests of a whole step at once is
    given those of `admit`. A request that the engine preempted is the engine's to resume: report it
    with `preempted`, and with `resumed` when it runs again; where an engine does not tell that, the
    next report of the request will do.

    Args:
        policy: a fresh policy over the m requests that are left.
        prompt_tokens, cached_tokens: prompt length of the plan's n requests, and how much of it
            the prefix cache is expected to hold; int [n].
        limits: limits of the engine.
        left: row of the plan of each of the policy's requests; the policy's own numbers without
            it; int64 [m].
        holding: what a request holds of the KV cache, all counts of which are in slots.
    """

    def __init__(
        self,
        policy: Policy,
        prompt_tokens: ArrayLike,
        cached_tokens: ArrayLike,
        limits: EngineLimits,
        left: NDArray[np.int64] | None = None,
        holding: Holding = GROWS_BY_ONE,
    ) -> None:
        self.name = policy.name
        self.limits = limits
        self._policy = policy
        self._state = policy.state
        self._transitions = policy.transitions
        prompts = np.asarray(prompt_tokens, dtype=np.int64)
        self._left = np.arange(len(prompts), dtype=np.int64) if left is None else left
        # The policy knows a request by its place among those that are left.
        self._place = np.full(len(prompts), -1, dtype=np.int64)
        self._place[self._left] = np.arange(len(self._left))
        self._all_new_tokens = prompts - np.asarray(cached_tokens, dtype=np.int64)
        self._new_tokens = self._all_new_tokens[self._left]
        new_slots = holding.growth * self._all_new_tokens + holding.level(prompts)
        self._all_new_slots = np.ceil(new_slots).astype(np.int64)
        self._new_slots = self._all_new_slots[self._left]
        self._chosen = np.empty(limits.max_num_seqs, dtype=np.int64)
        self._status = np.full(len(prompts), DONE, dtype=np.int8)
        self._status[self._left] = WAITING
        self._running = 0
        self._preempted = 0
        self._unadmitted = len(self._left)
        self._prefill_tokens = limits.max_num_batched_tokens
        # Steps begun, and of each row the one before it came in and what it had generated then.
        self._steps = 0
        self._entered = np.zeros(len(prompts), dtype=np.int64)
        self._generated = np.zeros(len(prompts), dtype=np.int64)

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that the coming step may compute, as of the last `admit`.

        What was admitted but is not computed yet counts too. An engine that can hold back prompts
        for the sake of the requests that decode should keep to it.
        """
        return self._prefill_tokens

    @property
    def running(self) -> int:
        """Requests admitted and neither finished nor preempted."""
        return self._running

    @property
    def done(self) -> bool:
        """Whether every request has been admitted."""
        return self._unadmitted == 0

    def admit(
        self, free_kv_tokens: int, *, step_tokens: int | None = None, backlog_tokens: int = 0
    ) -> NDArray[np.int64]:
        """Rows to submit to the engine now, in this order; call it once before each step.

        An idle engine is always given something while requests are left.

        Args:
            free_kv_tokens: KV-cache tokens that the engine could give to new requests.
            step_tokens: tokens that the next step has left for prefill; the limit of the
                engine without it.
            backlog_tokens: prompt tokens of requests admitted earlier that the engine has yet to
                compute; they come first.
        """
        self._steps += 1
        step_tokens = self.limits.max_num_batched_tokens if step_tokens is None else step_tokens
        used_kv_tokens = float(max(0, self.limits.kv_tokens - free_kv_tokens))
        count, self._prefill_tokens = _admission(self._transitions)(
            self._state,
            self._new_tokens,
            self._new_slots,
            self._chosen,
            int(free_kv_tokens),
            used_kv_tokens,
            self._running,
            self._preempted,
            int(step_tokens),
            int(backlog_tokens),
        )
        chosen: NDArray[np.int64] = self._left[self._chosen[:count]]
        self._status[chosen] = RUNNING
        self._entered[chosen] = self._steps
        self._running += count
        self._unadmitted -= count
        return chosen

    def begin_step(self, used_kv_tokens: float) -> int:
        """Start a step of an engine that asks for one request after the other.

        Args:
            used_kv_tokens: KV tokens that its running requests hold.

        Returns:
            prompt tokens that the step may compute, beside a token of each running request.
        """
        self._steps += 1
        self._prefill_tokens = self._transitions.begin_step(
            self._state, self._running, used_kv_tokens
        )
        return self._prefill_tokens

    def next_row(self) -> int:
        """The row to try next in this step, or -1 for none; the engine need not take it."""
        place = self._transitions.next_request(self._state, self._running)
        return -1 if place < 0 else int(self._left[place])

    def upcoming(self, count: int) -> NDArray[np.int64]:
        """Rows that may be next, so that they can be made ready, of each queue; int64.

        In the order of the plan where the policy cannot tell.

        Args:
            count: how many of each of its queues.
        """
        if self._policy.upcoming is None:
            return np.flatnonzero(self._status == WAITING)[:count]
        rows: NDArray[np.int64] = self._left[self._policy.upcoming(self._state, count)]
        return rows[self._status[rows] == WAITING]

    def admitted(self, row: int) -> None:
        """Tell the policy that the row of `next_row` was given room.

        Raises:
            BlendplanError: the row was admitted before.
        """
        self._expect(row, "admitted", WAITING)
        self._transitions.admitted(self._state, int(self._place[row]))
        self._enter(row)
        self._unadmitted -= 1

    def finished(self, rows: Iterable[int]) -> None:
        """Tell the policy that requests are done and no longer hold KV cache.

        Raises:
            BlendplanError: no such row, or one that is not on the engine.
        """
        for row in rows:
            if self._expect(row, "finished", RUNNING, PREEMPTED) == PREEMPTED:
                self.resumed([row])
            self._transitions.finished(self._state, int(self._place[row]))
            self._leave(row, DONE)

    def preempted(self, rows: Iterable[int]) -> None:
        """Tell the policy that the engine took the KV cache of running requests.

        Raises:
            BlendplanError: no such row, or one that is not on the engine.
        """
        for row in rows:
            if self._expect(row, "preempted", RUNNING, PREEMPTED) == PREEMPTED:
                continue
            self._transitions.preempted(self._state, int(self._place[row]))
            self._leave(row, PREEMPTED)
            self._preempted += 1

    def resumed(self, rows: Iterable[int]) -> None:
        """Tell the policy that preempted requests run again.

        Raises:
            BlendplanError: no such row, or one that was not preempted.
        """
        for row in rows:
            self._expect(row, "resumed", PREEMPTED)
            self._transitions.admitted(self._state, int(self._place[row]))
            self._enter(row)
            self._preempted -= 1

    @property
    def ended(self) -> NDArray[np.int64]:
        """Rows of the policy's requests that are done; int64."""
        rows: NDArray[np.int64] = self._left[self._status[self._left] == DONE]
        return rows

    def elapsed_steps(self) -> NDArray[np.int32]:
        """Steps that each row has been on the engine; int32 [n].

        Give or take its prefill, the tokens that it has generated.
        """
        now = np.where(self._status == RUNNING, self._steps - self._entered, 0)
        return (self._generated + now).astype(np.int32)

    def progress(self, generated: NDArray[np.int32]) -> Progress:
        """How far the run is.

        Args:
            generated: output tokens of each row so far; int32 [n].
        """
        status = self._status[self._left]
        return Progress(
            running=np.flatnonzero(status == RUNNING),
            admitted=status != WAITING,
            finished=status == DONE,
            generated=generated[self._left],
        )

    def revise(self, known: PolicyInput, progress: Progress) -> None:
        """Go over to what is known by now, where the policy looks at lengths.

        Args:
            known: of the policy's m requests.
            progress: of the run, as of now.
        """
        if self._policy.revise is not None:
            self._follow(self._policy.revise(self._policy, known, progress, self.limits))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the policy's m requests; int64 [m]."""
        return self._left

    @property
    def waiting(self) -> int:
        """Requests that have not been admitted."""
        return self._unadmitted

    @property
    def looks_at_lengths(self) -> bool:
        """Whether it goes over to what is learned of output lengths."""
        return self._policy.revise is not None

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The policy's own numbers of some rows, -1 of those that it does not know; int64."""
        return self._place[rows]

    def regroup(
        self, rows: NDArray[np.int64], known: PolicyInput, fresh: Callable[[], Policy]
    ) -> list[int]:
        """Go on with other requests: those that wait are arranged anew.

        Args:
            rows: of its m requests from now on, all that are on the engine among them; int64 [m].
                Those that it did not know wait.
            known: what is known of them by now.
            fresh: makes a policy over them in its first state.

        Returns:
            rows that have begun and wait for the policy all the same: it looks at no lengths, so
            it comes to them in its order.
        """
        kept = self._place[rows]
        given_up = np.setdiff1d(self._left, rows, assume_unique=True)
        self._unadmitted -= int(np.count_nonzero(self._status[given_up] == WAITING))
        self._unadmitted += int(np.count_nonzero(kept < 0))
        self._status[given_up] = DONE
        self._status[rows[kept < 0]] = WAITING
        self._left = rows
        self._place[given_up] = -1
        self._place[rows] = np.arange(len(rows))
        self._new_tokens = self._all_new_tokens[rows]
        self._new_slots = self._all_new_slots[rows]
        outside: list[int] = []
        if self._policy.revise is None:
            outside = rows[self._status[rows] != WAITING].tolist()
            self._status[outside] = WAITING
            self._unadmitted += len(outside)
            self._running = self._preempted = 0
            self._follow(fresh())
        else:
            progress = self.progress(self.elapsed_steps())
            self._follow(self._policy.revise(self._policy, known, progress, self.limits, kept))
        return outside

    def _follow(self, policy: Policy) -> None:
        self._policy, self._state, self._transitions = policy, policy.state, policy.transitions

    def _enter(self, row: int) -> None:
        self._status[row] = RUNNING
        self._entered[row] = self._steps
        self._running += 1

    def _leave(self, row: int, status: int) -> None:
        self._status[row] = status
        self._generated[row] += self._steps - self._entered[row]
        self._running -= 1

    def _expect(self, row: int, event: str, *allowed: int) -> int:
        """The status of a row, which must be one of ``allowed``."""
        if not 0 <= row < len(self._status):
            raise BlendplanError(
                f"row {row} is reported {event}, the plan has rows 0 to {len(self._status) - 1}"
            )
        status = int(self._status[row])
        if status not in allowed:
            raise BlendplanError(
                f"row {row} is reported {event}, but it is {_WORDS[status]}; report what happens "
                f"to a row once, after `admit` has returned it"
            )
        return status

    def status(self, row: int) -> int:
        """Whether a row is WAITING, RUNNING, PREEMPTED or DONE."""
        return int(self._status[row])

    def status_of(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """The same of many rows; int8."""
        return self._status[rows]

    def shares(self) -> tuple[int, int]:
        """The memory partition in force: KV tokens of the compute and of the memory side."""
        compute, memory = self._transitions.shares(self._state)
        return round(compute), round(memory)


@cache
def _admission(transitions: Transitions) -> Callable[..., tuple[int, int]]:
    """Admission of all requests of a step at once, compiled for one kind of policy."""
    begin_step, next_request, admitted = transitions[:3]

    @kernel
    def admit(
        state: Any,
        new_tokens: NDArray[np.int64],
        new_slots: NDArray[np.int64],
        chosen: NDArray[np.int64],
        free_kv_tokens: int,
        used_kv_tokens: float,
        running: int,
        preempted: int,
        step_tokens: int,
        backlog_tokens: int,
    ) -> tuple[int, int]:
        prefill_tokens = min(begin_step(state, running, used_kv_tokens), step_tokens)
        # A request that is not through with its prompt leaves its token to prefill.
        budget = prefill_tokens + int(backlog_tokens > 0) - backlog_tokens
        count = 0
        # A preempted request keeps its seat: the engine resumes it before it takes another.
        while running + preempted + count < len(chosen) and budget > 0:
            request = next_request(state, running + count)
            if request < 0:
                break
            if new_slots[request] > free_kv_tokens and running + count > 0:
                break
            admitted(state, request)
            chosen[count] = request
            count += 1
            free_kv_tokens -= new_slots[request]
            budget -= new_tokens[request]
        return count, prefill_tokens

    return admit
