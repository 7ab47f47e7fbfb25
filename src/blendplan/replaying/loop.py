"""The replay loop: the plan's live policy on one side, an engine on the other.

It asks the policy what to admit given what the engine reports, submits, collects and writes. It
does not know which engine it drives.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.protocol import (
    AskingEngine,
    Engine,
    EngineDiedError,
    EngineRequest,
    Finished,
    Refused,
    StepReport,
)
from blendplan.errors import BlendplanError
from blendplan.planfile.rows import Work
from blendplan.policy.live import DONE, PREEMPTED, RUNNING, WAITING, LivePolicy
from blendplan.replaying.asked import Asked, asked
from blendplan.replaying.logs import Log
from blendplan.replaying.replanning import Replanning
from blendplan.replaying.stop import Stop
from blendplan.replaying.tally import Tally
from blendplan.replaying.writer import ResultsWriter
from blendplan.requests.record import BadRecordError

# Deaths without a single finished request in between, after which the engine is hopeless.
_MOST_DEATHS_IN_A_ROW = 8


class _Flight(NamedTuple):
    """A request that is on the engine: since when, and how its answer will be shaped."""

    submitted_s: float
    chat: bool
    model: str | None


class ReplayLoop:
    """One session of a run.

    A request that fails is tried again ``retries`` times; an engine that dies is started again
    and everything that was on it counts one failure. Those that an engine's death would cost
    their last attempt get it alone, so that a request that kills engines takes no other with it.

    Args:
        work: the sequences, by requests: a request is named by the row of its first answer.
        policy: asked what to admit.
        engine, restart: the started engine, and how to start another one.
        writer: takes results and knows which requests have one already.
        tally: counts.
        stop: asked between steps whether to end.
        retries: further attempts of a request that failed.
        steps, requests: logs.
        replanning: what learns from the run, None for nothing.
        progress: called now and then.
    """

    def __init__(
        self,
        work: Work,
        policy: LivePolicy,
        engine: Engine | AskingEngine,
        restart: Callable[[], Engine | AskingEngine],
        writer: ResultsWriter,
        tally: Tally,
        stop: Stop,
        *,
        retries: int,
        steps: Log,
        requests: Log,
        replanning: Replanning | None,
        progress: Callable[[Tally], None],
    ) -> None:
        self._work = work
        self._policy = policy
        self._engine = engine
        self._restart = restart
        self._writer = writer
        self._tally = tally
        self._stop = stop
        self._retries = retries
        self._steps = steps
        self._requests = requests
        self._replanning = replanning
        self._progress = progress
        self._in_flight: dict[int, _Flight] = {}
        self._failures: dict[int, int] = {}
        self._again: deque[int] = deque()
        self._alone: deque[int] = deque()
        self._lone_row = -1
        self._preempted: set[int] = set()
        self._deaths_in_a_row = 0
        self._started_s = 0.0
        self._clock_s: float | None = None
        self._offered: Asked | None = None

    def run(self) -> None:
        """Run until every request has a line, or until asked to stop.

        Raises:
            BlendplanError: the engine cannot be kept alive.
        """
        report = self._idle_report()
        self._started_s = time.monotonic()
        try:
            while True:
                try:
                    if isinstance(self._engine, AskingEngine):
                        report = self._engine.step_asking(self)
                        idle = not (report.steps or report.refused or self._in_flight)
                    else:
                        submitted = self._choose(report)
                        idle = not self._in_flight
                        if not idle:
                            report = self._engine.step(submitted, self._policy.prefill_tokens)
                except EngineDiedError as death:
                    report = self._bury(death)
                    continue
                if idle:
                    break
                self._take(report)
                if self._replanning is not None:
                    # Simulated time stands still between two steps.
                    waits = report.clock_s is not None
                    self._replanning.after_step(self._engine, waits=waits)
                self._progress(self._tally)
        finally:
            self._engine.close()

    def begin_step(self, used_kv_tokens: float) -> int:
        """As `Admission`: start a step."""
        return self._policy.begin_step(used_kv_tokens)

    def next_request(self) -> EngineRequest | None:
        """As `Admission`: the request to try next, those that failed once first."""
        while not self._stop.asked:
            row = self._again[0] if self._again else self._policy.next_row()
            if row < 0:
                return None
            row = self._work.first(row)
            if self._offered is None or self._offered.request.row != row:
                self._offered = self._asked(row)
            if self._offered is not None:
                return self._offered.request
            # It cannot be asked of any engine: it is past, and has its error line.
            self._end(self._work.rows_of(row))
        return None

    def admitted(self, row: int) -> None:
        """As `Admission`: the request that was offered, or a further answer, is on the engine."""
        assert self._offered is not None
        if self._again and self._again[0] == row:
            self._again.popleft()
        self._enter([row])
        if self._work.first(row) == row:
            self._in_flight[row] = _Flight(self._now(), self._offered.chat, self._offered.model)

    def preempted(self, row: int) -> None:
        """As `Admission`: a request lost its KV cache."""
        self._note_preemptions([row], [])

    def resumed(self, row: int) -> None:
        """As `Admission`: a request has its KV cache again."""
        self._note_preemptions([], [row])

    def _choose(self, report: StepReport) -> list[EngineRequest]:
        """What to submit before the next step."""
        while True:
            rows = self._next_rows(report)
            requests = [request for row in rows if (request := self._launch(row)) is not None]
            # Where all of them were unusable and nothing runs, there may be more.
            if requests or self._in_flight or not rows:
                return requests

    def _next_rows(self, report: StepReport) -> list[int]:
        if self._stop.asked:
            return []
        if self._alone or self._lone_row in self._in_flight:
            rows = [self._alone.popleft()] if not self._in_flight else []
            self._lone_row = rows[0] if rows else self._lone_row
            self._enter_again(rows)
            return rows
        rows = list(self._again)
        self._again.clear()
        self._enter_again(rows)
        # A further answer comes with its request.
        admitted = self._admit(report)
        return rows + [row for row in admitted if self._work.first(row) == row]

    def _enter_again(self, requests: Sequence[int]) -> None:
        for row in requests:
            self._enter(self._work.rows_of(row))

    def _enter(self, rows: Iterable[int]) -> None:
        """Tell the policy of rows that are on the engine from now on, for the first time or not."""
        for row in rows:
            status = self._policy.status(row)
            if status == WAITING:
                self._policy.admitted(row)
            elif status == PREEMPTED:
                self._policy.resumed([row])

    def _end(self, rows: Iterable[int]) -> None:
        """Tell the policy of rows that are done, as far as it does not know."""
        left = [row for row in rows if self._policy.status(row) != DONE]
        self._enter(left)
        self._preempted.difference_update(left)
        self._policy.finished(left)

    def _admit(self, report: StepReport) -> list[int]:
        """Ask the policy what to admit now."""
        decoding = report.running - bool(report.backlog_tokens)
        step_tokens = self._engine.capacity.limits.max_num_batched_tokens - decoding
        # What is submitted behind a waiting request could only wait too.
        backlog_tokens = step_tokens if report.waiting else report.backlog_tokens
        rows: list[int] = self._policy.admit(
            report.free_kv_tokens, step_tokens=step_tokens, backlog_tokens=backlog_tokens
        ).tolist()
        return rows

    def _launch(self, row: int) -> EngineRequest | None:
        found = self._asked(row)
        if found is None:
            self._end(self._work.rows_of(row))
            return None
        self._enter(self._work.rows_of(row))
        self._in_flight[row] = _Flight(self._now(), found.chat, found.model)
        return found.request

    def _asked(self, row: int) -> Asked | None:
        """The request in a row; None where there is none, which is then written down."""
        try:
            return asked(self._work, row)
        except (BadRecordError, ValueError) as error:
            self._write_error(Refused(row, "invalid_request", str(error), retry=False))
            return None

    def _take(self, report: StepReport) -> None:
        """Tell the policy and the user what happened in a step."""
        self._clock_s = report.clock_s
        self._tally.steps += report.steps
        self._tally.elapsed_s = self._now()
        self._note_preemptions(report.preempted, report.resumed)
        for refused in report.refused:
            self._fail(refused)
        self._end(row for row in report.ended if self._work.first(row) in self._in_flight)
        self._finish([done for done in report.finished if done.row in self._in_flight])
        for work in report.work:
            self._steps.add(
                prefill_tokens=work.prefill_tokens,
                decode_tokens=work.decode_tokens,
                kv_tokens_read=work.kv_tokens_read,
                sequences=work.prefill_sequences + work.decode_tokens,
                prefill_pairs=work.prefill_pairs,
                time_s=work.time_s,
                end_s=self._tally.elapsed_s,
                kv_tokens_used=work.kv_tokens_used,
                running=report.running,
                waiting=report.waiting,
            )

    def _note_preemptions(self, preempted: Sequence[int], resumed: Sequence[int]) -> None:
        lost = [
            row
            for row in preempted
            if self._work.first(row) in self._in_flight and self._policy.status(row) == RUNNING
        ]
        self._tally.preemptions += len(preempted)
        self._preempted.update(lost)
        self._policy.preempted(lost)
        self._resume(row for row in resumed if row in self._preempted)

    def _resume(self, rows: Iterable[int]) -> None:
        back = list(rows)
        self._preempted.difference_update(back)
        self._policy.resumed(back)

    def _finish(self, finished: Sequence[Finished]) -> None:
        if not finished:
            return
        self._deaths_in_a_row = 0
        rows = [done.row for done in finished]
        self._end(row for first in rows for row in self._work.rows_of(first))
        flights = [self._in_flight.pop(row) for row in rows]
        self._writer.write_results(
            [
                (done, flight.chat, flight.model)
                for done, flight in zip(finished, flights, strict=True)
            ],
            self._engine.capacity.version,
        )
        for done, flight in zip(finished, flights, strict=True):
            self._tally.add(done, len(self._work.rows_of(done.row)))
            self._note_request(done, flight.submitted_s)

    def _note_request(self, done: Finished, submitted_s: float) -> None:
        if not self._requests.wanted:
            return
        latency = done.first_token_s
        self._requests.add(
            submitted_s=submitted_s,
            first_token_s=None if latency is None else submitted_s + latency,
            finished_s=self._now(),
            prompt_tokens=done.prompt_tokens,
            cached_tokens=done.cached_tokens,
            output_tokens=done.completion_tokens,
            answers=len(self._work.rows_of(done.row)),
            preemptions=done.preemptions,
            attempts=self._failures.get(done.row, 0) + 1,
            **self._writer.planned(done.row),
        )

    def _fail(self, refused: Refused) -> None:
        """One attempt of one request failed."""
        row = refused.row
        if row not in self._in_flight:
            return
        self._failures[row] = self._failures.get(row, 0) + 1
        if not refused.retry or self._failures[row] > self._retries:
            self._give_up(refused)
            return
        del self._in_flight[row]
        rows = self._work.rows_of(row)
        self._policy.preempted(one for one in rows if self._policy.status(one) == RUNNING)
        self._preempted.difference_update(rows)
        self._again.append(row)

    def _give_up(self, refused: Refused) -> None:
        self._in_flight.pop(refused.row, None)
        self._end(self._work.rows_of(refused.row))
        self._write_error(refused)

    def _write_error(self, refused: Refused) -> None:
        self._tally.failed += 1
        self._writer.write_error(refused)

    def _bury(self, death: EngineDiedError) -> StepReport:
        """Start another engine after this one died; what was on it failed once."""
        self._deaths_in_a_row += 1
        self._tally.restarts += 1
        for row in list(self._in_flight):
            self._fail(Refused(row, "engine_died", str(death), retry=True))
        if self._retries > 0:
            suspects = [row for row in self._again if self._failures[row] == self._retries]
            self._alone.extend(suspects)
            self._again = deque(row for row in self._again if row not in set(suspects))
        if self._deaths_in_a_row >= _MOST_DEATHS_IN_A_ROW:
            raise BlendplanError(
                f"the engine died {self._deaths_in_a_row} times in a row without finishing a "
                f"request, most recently because {death}"
            )
        self._engine.close()
        try:
            self._engine = self._restart()
        except EngineDiedError as error:
            raise BlendplanError(f"the engine died and cannot be started again: {error}") from None
        return self._idle_report()

    def _idle_report(self) -> StepReport:
        return StepReport(free_kv_tokens=self._engine.capacity.limits.kv_tokens)

    def _now(self) -> float:
        """Seconds since the start of the session, on the engine's clock."""
        return time.monotonic() - self._started_s if self._clock_s is None else self._clock_s


def hopeless(work: Work, context_tokens: int, done: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Requests whose prompt leaves no room for a single generated token; int64 [k].

    Only prompts of known length are judged; the engine judges the others.
    """
    known = np.asarray(work.prompt_token_ids.is_valid().to_numpy(), dtype=bool)
    known &= work.answer == 0
    return np.flatnonzero(known & ~done & (work.prompt_tokens >= context_tokens))
