"""The replay loop: requests to an engine that asks for them, answers to disk.

Which request goes next is the business of the policy inside the engine. The loop sends what the
engine is about to want, tries again what failed, starts an engine again that died, and writes. It
does not know which engine it drives.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from blendplan.engines.protocol import (
    Answer,
    Ended,
    Engine,
    EngineDiedError,
    EngineRequest,
    Report,
    Session,
)
from blendplan.errors import BlendplanError
from blendplan.planfile.rows import Work
from blendplan.printable import show
from blendplan.replaying.asked import asked
from blendplan.replaying.job import Job
from blendplan.replaying.logs import Log
from blendplan.replaying.stop import Stop
from blendplan.replaying.tally import Tally
from blendplan.replaying.usage import message_of, usage_of
from blendplan.replaying.writer import ResultsWriter
from blendplan.requests.record import BadRecordError

# Deaths without a single finished request in between, after which the engine is hopeless.
_MOST_DEATHS_IN_A_ROW = 8


class _Sent(NamedTuple):
    """A request that the engine has, and since when."""

    request: EngineRequest
    sent_s: float


class ReplayLoop:
    """One session of a run.

    A request that fails is tried again ``retries`` times; an engine that dies is started again
    and everything that ran on it counts one failure. Those that an engine's death would cost
    their last attempt get it alone, so that a request that kills engines takes no other with it.

    Args:
        work: the sequences, by requests: a request is named by the row of its first answer.
        engine: started for everything that has no line yet.
        restart: starts another one: (rows that go before all others, rows that run one by one).
        writer: takes results and knows which requests have one already.
        tally: counts.
        stop: asked between reports whether to end.
        retries: further attempts of a request that failed.
        steps, requests: logs.
        remark: called with a line on anything that the user should know.
        progress: called after each report.
    """

    def __init__(
        self,
        work: Work,
        engine: Engine,
        restart: Callable[[Sequence[int], Sequence[int]], Engine],
        writer: ResultsWriter,
        tally: Tally,
        stop: Stop,
        *,
        retries: int,
        steps: Log,
        requests: Log,
        remark: Callable[[str], None],
        progress: Callable[[Tally], None],
    ) -> None:
        self._work = work
        self._engine = engine
        self._restart = restart
        self._writer = writer
        self._tally = tally
        self._stop = stop
        self._retries = retries
        self._steps = steps
        self._requests = requests
        self._remark = remark
        self._progress = progress
        self._sent: dict[int, _Sent] = {}
        self._began: set[int] = set()
        self._ended: dict[int, list[Ended]] = {}
        self._failures: dict[int, int] = {}
        self._refusals: set[int] = set()
        self._deaths_in_a_row = 0
        self._started_s = 0.0
        self._clock_s: float | None = None
        self.learned: dict[str, object] | None = None

    def run(self) -> None:
        """Run until every request has a line, or until asked to stop.

        Raises:
            BlendplanError: the engine cannot be kept alive.
        """
        self._started_s = time.monotonic()
        to_send: list[EngineRequest] = []
        stopping = False
        try:
            while self._tally.left:
                if self._stop.asked and not stopping:
                    self._engine.stop()
                    stopping = True
                try:
                    report = self._engine.serve(to_send)
                except EngineDiedError as death:
                    if stopping:
                        break
                    self._bury(death)
                    to_send = []
                    continue
                to_send = self._take(report)
                self._progress(self._tally)
                if stopping and (report.idle or not self._sent):
                    break
        finally:
            self._engine.close()

    def _take(self, report: Report) -> list[EngineRequest]:
        """Write down what happened; the requests to send next."""
        self._clock_s = report.clock_s if report.clock_s is not None else self._clock_s
        self._tally.steps += report.steps
        self._tally.preemptions += report.preemptions
        self._tally.elapsed_s = self._now()
        self._began.update(report.began)
        for ended in report.ended:
            self._ended.setdefault(self._work.first(ended.row), []).append(ended)
        if report.learned is not None:
            self.learned = report.learned
        for line in report.remarks:
            self._remark(line)
        self._log(report)
        again = self._take_answers(report.answers)
        return again + self._ask(report.wanted)

    def _ask(self, rows: Sequence[int]) -> list[EngineRequest]:
        """The requests in these rows; those that cannot be asked of any engine get their line."""
        requests, unusable = [], []
        for row in rows:
            if self._writer.done[row]:
                unusable.append(row)
                continue
            try:
                request = asked(self._work, row)
            except (BadRecordError, ValueError) as error:
                self._write_error(row, "invalid_request", str(error))
                unusable.append(row)
                continue
            self._sent[row] = _Sent(request, self._now())
            requests.append(request)
        if unusable:
            self._engine.pass_over(unusable)
        return requests

    def _take_answers(self, answers: Sequence[Answer]) -> list[EngineRequest]:
        """Write answers; the requests that are to be tried again."""
        good, again, refused = [], [], []
        for answer in answers:
            if answer.row not in self._sent:
                continue
            if answer.status < 400:
                good.append(answer)
            elif answer.status >= 500 and self._may_try_again(answer.row):
                self._ended.pop(answer.row, None)
                again.append(self._sent[answer.row].request)
            else:
                refused.append(answer)
                self._tell_refusal(answer)
        # Some are answered without the engine's scheduler, or with fewer sequences than planned.
        unseen = [one.row for one in good + refused if self._missing(one.row)]
        self._write(good)
        for answer in refused:
            self._leave(answer.row)
            self._tally.failed += 1
            self._writer.write_refusal(answer)
        if unseen:
            self._engine.pass_over(unseen)
        return again

    def _missing(self, row: int) -> bool:
        """Whether the scheduler has not told of all sequences of a request."""
        return len(self._ended.get(row, ())) < len(self._work.rows_of(row))

    def _tell_refusal(self, answer: Answer) -> None:
        """Say what a server refuses, once for each status: often it is the same for all."""
        if answer.status not in self._refusals:
            self._refusals.add(answer.status)
            self._remark(
                f"request {show(self._work.request_id(answer.row))} was refused with status "
                f"{answer.status}: {message_of(answer.body)}"
            )

    def _write(self, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        self._deaths_in_a_row = 0
        self._writer.write_answers(answers)
        for answer in answers:
            usage = usage_of(answer.body)
            sent, ended = self._leave(answer.row)
            self._writer.note_length(answer.row, usage.completion_tokens)
            cached = sum(one.cached_tokens for one in ended) if ended else usage.cached_tokens
            count = len(self._work.rows_of(answer.row))
            self._tally.add(count, usage.prompt_tokens, cached, usage.completion_tokens)
            if self._requests.wanted:
                latencies = [one.first_token_s for one in ended if one.first_token_s is not None]
                self._requests.add(
                    submitted_s=sent.sent_s,
                    first_token_s=sent.sent_s + min(latencies) if latencies else None,
                    finished_s=self._now(),
                    prompt_tokens=usage.prompt_tokens,
                    cached_tokens=cached,
                    output_tokens=usage.completion_tokens,
                    answers=count,
                    preemptions=sum(one.preemptions for one in ended) if ended else None,
                    attempts=self._failures.get(answer.row, 0) + 1,
                    **self._writer.planned(answer.row),
                )

    def _leave(self, row: int) -> tuple[_Sent, list[Ended]]:
        """A request is done with the engine."""
        self._began.discard(row)
        return self._sent.pop(row), self._ended.pop(row, [])

    def _log(self, report: Report) -> None:
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
                running=work.running,
                waiting=work.waiting,
            )

    def _may_try_again(self, row: int) -> bool:
        """Whether a request that failed now has another attempt."""
        self._failures[row] = self._failures.get(row, 0) + 1
        return self._failures[row] <= self._retries

    def _write_error(self, row: int, code: str, message: str) -> None:
        self._tally.failed += 1
        self._writer.write_error(row, code, message)

    def _bury(self, death: EngineDiedError) -> None:
        """Start another engine after this one died; what ran on it failed once."""
        self._deaths_in_a_row += 1
        self._tally.restarts += 1
        # What waited in the engine did it no harm, unless nothing had begun.
        suspects = [row for row in self._sent if row in self._began] or list(self._sent)
        for row in suspects:
            if not self._may_try_again(row):
                self._write_error(row, "engine_died", str(death))
        failed = [row for row in self._failures if not self._writer.done[row]]
        alone = [row for row in failed if self._failures[row] == self._retries]
        first = [row for row in failed if self._failures[row] < self._retries]
        self._sent.clear()
        self._began.clear()
        self._ended.clear()
        if self._deaths_in_a_row >= _MOST_DEATHS_IN_A_ROW:
            raise BlendplanError(
                f"the engine died {self._deaths_in_a_row} times in a row without finishing a "
                f"request, most recently because {death}"
            )
        self._engine.close()
        if not self._tally.left:
            return
        try:
            self._engine = self._restart(first, alone)
        except EngineDiedError as error:
            raise BlendplanError(f"the engine died and cannot be started again: {error}") from None

    def _now(self) -> float:
        """Seconds since the start of the session, on the engine's clock."""
        return time.monotonic() - self._started_s if self._clock_s is None else self._clock_s


def session_of(
    job: Job, writer: ResultsWriter, first: Sequence[int], alone: Sequence[int], *, replan: bool
) -> Session:
    """What is left of a run that has written so much.

    Args:
        job: what is run.
        writer: knows what is done.
        first, alone, replan: as of `Session`.
    """
    left = ~writer.done
    in_order = job.order[left[job.order]]
    return Session(
        left=np.flatnonzero(left),
        requests=in_order[job.rows.answer[in_order] == 0],
        ended=writer.output_tokens.copy(),
        first=tuple(first),
        alone=tuple(alone),
        replan=replan,
    )
