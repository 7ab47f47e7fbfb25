"""`PlannedAdmission`: a plan's live policy inside an engine's scheduler.

An engine's scheduler asks it, step by step, which request goes next, and tells it what became of
them. Sequences are named by their row in the plan; a request that the plan does not know, a
stranger, is given a row behind them, and is served before anything that was planned.

Requests come to the scheduler by themselves. Where a replay sends them, it is told which rows the
policy is about to want, and a row that is not there yet is on its way. Where somebody else sends
them, a planned request may come late or never: after a stated wait those that are there are served
in the order of the plan, and the policy goes on when its next request has come.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.asking import Asking
from blendplan.engines.news import News
from blendplan.engines.prompt_check import PromptCheck
from blendplan.engines.protocol import Ended, Move, Report, Session
from blendplan.engines.regrouping import compile_policy, policy_over, regroup, regrouped_rows
from blendplan.engines.replanning import Replanning
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.policy.live import WAITING, LivePolicy

# Seconds that a plan's next request is waited for while others are there.
WAIT_S = 1.0


class PlannedAdmission(News):
    """Which request of a plan an engine's scheduler admits next.

    Safe to be called from several threads.

    Args:
        plan: for one replica; n rows.
        limits: of the engine.
        session: what is left of the plan; all of it without one.
        tell: called with a report whenever there is news, from within the calls of the scheduler;
            None where nobody sends requests when asked to.
        wait_s: seconds that the plan's next request is waited for.
    """

    def __init__(
        self,
        plan: Plan,
        limits: EngineLimits,
        *,
        session: Session | None = None,
        tell: Callable[[Report], None] | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        super().__init__(plan, limits, tell)
        self._wait_s = wait_s
        if session is None:
            none = np.zeros(len(plan), dtype=np.int32)
            session = Session(np.arange(len(plan)), self._firsts, none)
        self._session = session
        self._lengths = session.ended.copy()
        self._alone = deque(session.alone)
        self._asking = Asking(self._answer, limits.max_num_seqs, shared=session.shared)
        self._here: set[int] = set()
        self._in_order: list[int] = []
        self._strangers: deque[int] = deque()
        self._next_stranger = len(plan)
        self._out_of_turn: set[int] = set()
        self._running: set[int] = set()
        self._began_anything = False
        self._stopping = False
        self._waiting_since: float | None = None
        self._past: set[int] = set()
        self._lost: set[int] = set()
        self._prompts = PromptCheck(plan, self.remark)
        self._told_idle = False
        self._moves = 0
        apart = [row for first in session.alone + session.first for row in self.rows_of(first)]
        compile_policy(plan, limits)
        self._make_policy(np.setdiff1d(session.left, np.array(apart, dtype=np.int64)))
        self._ask(session.alone + session.first)
        self._ask_ahead()

    @property
    def expected(self) -> int:
        """Requests that were asked for and are not there yet."""
        return len(self._asking.missing)

    @property
    def held(self) -> int:
        """Sequences that are there and have not begun."""
        return len(self._here)

    def arrived(self, row: int, prompt_tokens: int | None = None) -> None:
        """A sequence of the plan is there and waits for room.

        Args:
            row: of the plan.
            prompt_tokens: length of its prompt by the engine's tokenizer, where that is known.
        """
        with self._lock:
            if prompt_tokens is not None:
                self._prompts.compare(row, prompt_tokens)
            if self._answer[row] == 0:
                self._asking.missing.discard(row)
            self._here.add(row)
            self._past.discard(row)
            if row - int(self._answer[row]) in self._alone:
                return
            if self._policy is None or self._policy.status(row) != WAITING:
                self._strangers.append(row)
            elif self._tell is None:
                heapq.heappush(self._in_order, row)

    def stranger(self) -> int:
        """The row by which a request that the plan does not know is named from now on."""
        with self._lock:
            row = self._next_stranger
            self._next_stranger += 1
            self._here.add(row)
            self._strangers.append(row)
            return row

    def begin_step(
        self, used_kv_tokens: float, generated: Callable[[], NDArray[np.int32]], *, waits: bool
    ) -> int:
        """Start a step; returns how many prompt tokens it may compute.

        Args:
            used_kv_tokens: KV tokens that running requests hold.
            generated: output tokens of each row of the plan so far, called when it is looked at;
                int32 [n].
            waits: whether time stands still for the engine meanwhile.
        """
        with self._lock:
            if self._policy is None:
                return self.limits.max_num_batched_tokens
            if not self._running and not (self._here and self._may_begin()):
                return self.limits.max_num_batched_tokens  # nothing can be done in this one
            arranged_anew = (
                self._replanning is not None
                and self._began_anything
                and self._replanning.after_step(generated, waits=waits)
            )
            if arranged_anew or self._asking.due:
                self._ask_ahead()
            return self._policy.begin_step(used_kv_tokens)

    def next_row(self) -> int:
        """The row to try next in this step, -1 for none; the engine need not take it."""
        with self._lock:
            if self._stopping or not self._may_begin():
                return -1
            if self._alone:
                return self._of_one(self._alone[0]) if self._is_alone() else -1
            while self._strangers:
                if self._strangers[0] in self._here:
                    return self._strangers[0]
                self._strangers.popleft()
            row = self._next_of_policy()
            if row < 0:
                return -1
            if row in self._here:
                self._waiting_since = None
                return row
            if self._tell is not None:
                self._ask_ahead()
                return -1
            return self._in_its_place()

    def began(self, row: int) -> None:
        """The row of `next_row` was given room for the first time."""
        with self._lock:
            self._here.discard(row)
            self._running.add(row)
            self._began_anything = True
            self._asking.begun(1)
            if row == self._next_of_policy():
                self._policy.admitted(row)  # type: ignore[union-attr]
            else:
                self._out_of_turn.add(row)
            if row < len(self._answer) and self._answer[row] == 0:
                self._report.began.append(row)

    def preempted(self, row: int) -> None:
        """A running sequence lost its KV cache and waits in the engine."""
        with self._lock:
            self._report.preemptions += 1
            self._lost.add(row)
            if row not in self._out_of_turn and self._policy is not None:
                self._policy.preempted([row])

    def resumed(self, row: int) -> None:
        """A preempted sequence was given room again."""
        with self._lock:
            self._lost.discard(row)
            if row not in self._out_of_turn and self._policy is not None:
                self._policy.resumed([row])

    def ended(self, ended: Ended, output_tokens: int) -> None:
        """A sequence left the engine, whatever the reason; it need not have begun."""
        row = ended.row
        with self._lock:
            begun = row in self._running
            self._running.discard(row)
            self._lost.discard(row)
            self._here.discard(row)
            if row >= len(self._answer):
                self._out_of_turn.discard(row)
                return
            self._report.ended.append(ended)
            if begun:
                self._lengths[row] = output_tokens
            if self._planned(row):
                self._past.add(row)
            elif begun and row not in self._out_of_turn:
                self._policy.finished([row])  # type: ignore[union-attr]
            self._out_of_turn.discard(row)
            if self._alone and self._over(self._alone[0], row):
                self._alone.popleft()

    def pass_over(self, rows: Sequence[int]) -> None:
        """Wait no longer for requests: they have their line already.

        Args:
            rows: of first answers.
        """
        with self._lock:
            for first in rows:
                self._asking.missing.discard(first)
                if first in self._alone:
                    self._alone.remove(first)
                for row in self.rows_of(first):
                    if row not in self._running:
                        self._here.discard(row)
                        if self._planned(row):
                            self._past.add(row)
            self._asking.begun(len(rows))
            if self._asking.due:
                self._ask_ahead()
            self.flush()

    def move(self, move: Move) -> None:
        """Run other requests from now on; those that wait are arranged anew."""
        with self._lock:
            self._moves += 1
            for first in move.give:
                self._asking.missing.discard(first)
                if first in self._alone:
                    self._alone.remove(first)
            self._asking.forget([*move.give, *move.take])
            apart = {*move.first, *move.alone}
            taken = [
                row for first in move.take if first not in apart for row in self.rows_of(first)
            ]
            self._regroup(move.give, taken)
            self._alone.extend(move.alone)
            self._ask(move.alone + move.first)
            self._ask_ahead()

    def stop(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._stopping = True
            self.flush()

    def take_report(self) -> Report:
        """What is new since the last one."""
        with self._lock:
            report = super().take_report()
            report.idle = not self._running and (self._stopping or not self._here)
            self._told_idle = self._stopping and not self._running
            report.learned = None if self._replanning is None else self._replanning.news()
            report.moves = self._moves
            return report

    def _must_tell(self) -> bool:
        return self._stopping and not self._told_idle

    def _planned(self, row: int) -> bool:
        """Whether a row is still to come by the policy."""
        return (
            row < len(self._answer)
            and self._policy is not None
            and self._policy.status(row) == WAITING
        )

    def _next_of_policy(self) -> int:
        """The policy's next row; it is told of those that are past or began out of turn."""
        if self._policy is None:
            return -1
        while (row := self._policy.next_row()) >= 0:
            if row in self._past:
                self._past.discard(row)
                self._policy.admitted(row)
                self._policy.finished([row])
            elif row in self._out_of_turn:
                self._out_of_turn.discard(row)
                self._policy.admitted(row)
                if row in self._lost:
                    self._policy.preempted([row])
            else:
                return row
        return -1

    def _may_begin(self) -> bool:
        """The first step waits for the requests that were asked for, if not too long."""
        if self._began_anything or not self._asking.missing:
            return True
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        return time.monotonic() - self._waiting_since > self._wait_s

    def _over(self, first: int, row: int) -> bool:
        """Whether a row was the last of a request's that was left."""
        rows = self.rows_of(first)
        return row in rows and not any(one in self._running or one in self._here for one in rows)

    def _is_alone(self) -> bool:
        """Whether nothing runs but the first of those that run alone."""
        rows = self.rows_of(self._alone[0])
        return all(row in rows for row in self._running)

    def _of_one(self, first: int) -> int:
        """A waiting row of one request, -1 where none is there."""
        return next((row for row in self.rows_of(first) if row in self._here), -1)

    def _in_its_place(self) -> int:
        """What goes instead of a request that has not come: the first of the plan that has."""
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        if now - self._waiting_since < self._wait_s:
            return -1
        while self._in_order and self._in_order[0] not in self._here:
            heapq.heappop(self._in_order)
        return self._in_order[0] if self._in_order else -1

    def _make_policy(self, left: NDArray[np.int64]) -> None:
        """The policy over rows that are left, and what learns for it."""
        self._policy: LivePolicy | None = None
        self._replanning: Replanning | None = None
        if len(left):
            self._policy, self._replanning = policy_over(
                self.plan, self.limits, self._session, left, self._lengths, self.remark
            )

    def _regroup(self, given: Sequence[int], taken: list[int]) -> None:
        """The policy without some requests, and with other rows."""
        if self._policy is None:
            self._make_policy(np.array(taken, dtype=np.int64))
            return
        gone = {row for first in given for row in self.rows_of(first)}
        begun = self._past | self._out_of_turn
        # Requests that the policy would only pass over.
        for first in {row - int(self._answer[row]) for row in begun if self._planned(row)}:
            if all(row in begun or not self._planned(row) for row in self.rows_of(first)):
                gone.update(self.rows_of(first))
        left = regrouped_rows(self.plan, self._policy, gone, taken)
        self._past -= gone
        if not len(left):
            self._policy = self._replanning = None
            return
        outside = regroup(self.plan, self._policy, self._replanning, left)
        self._past.update(row for row in outside if row not in self._running)
        self._out_of_turn.update(row for row in outside if row in self._running)

    def _ask_ahead(self) -> None:
        """Ask for what the policy will want soon."""
        if self._tell is not None and self._policy is not None:
            self._want(self._asking.ahead(self._policy))

    def _ask(self, rows: Iterable[int]) -> None:
        if self._tell is not None:
            self._want(self._asking.ask(rows))

    def _want(self, rows: list[int]) -> None:
        self._report.wanted += rows
        if self._report.wanted:
            self.flush()
