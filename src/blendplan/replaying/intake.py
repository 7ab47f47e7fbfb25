"""`Intake`: what engines report, written down once.

It knows which requests are on an engine, which of them have begun, and how often each has failed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from blendplan.engines.protocol import Answer, Ended, EngineRequest, Report, StepWork
from blendplan.planfile.rows import Work
from blendplan.printable import show
from blendplan.replaying.asked import asked
from blendplan.replaying.logs import Log
from blendplan.replaying.tally import Tally
from blendplan.replaying.usage import message_of, usage_of
from blendplan.replaying.writer import ResultsWriter
from blendplan.requests.record import BadRecordError


class _Sent(NamedTuple):
    """A request that an engine has: since when, and of which replica."""

    request: EngineRequest
    sent_s: float
    replica: int


class Taken(NamedTuple):
    """What follows from a report.

    Attributes:
        again: requests to send once more.
        passed: rows that the engine's policy is to wait for no longer.
        done: rows that have their line now.
    """

    again: list[EngineRequest]
    passed: list[int]
    done: list[int]


class Intake:
    """Writes down what engines report.

    Args:
        work: the sequences, by requests: a request is named by the row of its first answer.
        writer: takes results and knows which requests have one already.
        tally: counts.
        retries: further attempts of a request that failed.
        steps, requests: logs.
        remark: called with a line on anything that the user should know.
    """

    def __init__(
        self,
        work: Work,
        writer: ResultsWriter,
        tally: Tally,
        *,
        retries: int,
        steps: Log,
        requests: Log,
        remark: Callable[[str], None],
    ) -> None:
        self._work = work
        self._writer = writer
        self._tally = tally
        self._retries = retries
        self._steps = steps
        self._requests = requests
        self._remark = remark
        self._sent: dict[int, _Sent] = {}
        self._began: set[int] = set()
        self._ended: dict[int, list[Ended]] = {}
        self._failures: dict[int, int] = {}
        self._refusals: set[int] = set()
        self._started_s: float | None = None
        self._clock_s: float | None = None

    def begin(self) -> None:
        """The run begins now, if it has not begun."""
        if self._started_s is None:
            self._started_s = time.monotonic()

    @property
    def now_s(self) -> float:
        """Seconds since the start of the session, on the clock of the engine at hand."""
        if self._clock_s is not None:
            return self._clock_s
        return 0.0 if self._started_s is None else time.monotonic() - self._started_s

    def sent_to(self, replica: int) -> list[int]:
        """Rows that the engine of a replica has."""
        return [row for row, sent in self._sent.items() if sent.replica == replica]

    def failed_of(self, rows: Iterable[int]) -> tuple[list[int], list[int]]:
        """Of these rows, those that failed and go before others, and those that go one by one."""
        failed = [row for row in rows if row in self._failures]
        alone = [row for row in failed if self._failures[row] == self._retries]
        return [row for row in failed if self._failures[row] < self._retries], alone

    @property
    def failed(self) -> list[int]:
        """Rows that failed and have no line yet."""
        return [row for row in self._failures if not self._writer.done[row]]

    def ask(self, replica: int, rows: Sequence[int]) -> tuple[list[EngineRequest], list[int]]:
        """The requests in these rows for a replica, and the rows that cannot be asked of any.

        Those get their error line, unless they have a line already.
        """
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
            self._sent[row] = _Sent(request, self.now_s, replica)
            requests.append(request)
        return requests, unusable

    def take(self, replica: int, report: Report) -> Taken:
        """Write down what a replica reports."""
        self._clock_s = report.clock_s
        self._tally.steps += report.steps
        self._tally.preemptions += report.preemptions
        self._tally.elapsed_s = max(self._tally.elapsed_s, self.now_s)
        self._began.update(row for row in report.began if self._is_on(replica, row))
        for ended in report.ended:
            first = self._work.first(ended.row)
            if self._is_on(replica, first):
                self._ended.setdefault(first, []).append(ended)
        for line in report.remarks:
            self._remark(line)
        self._log(replica, report.work)
        return self._take_answers(replica, report.answers)

    def bury(self, replica: int, reason: str) -> list[int]:
        """The engine of a replica died, and what ran on it failed once.

        Returns:
            rows that had their last attempt, and have their error line now.
        """
        self._tally.restarts += 1
        lost = self.sent_to(replica)
        # What waited in the engine did it no harm, unless nothing had begun.
        suspects = [row for row in lost if row in self._began] or lost
        done = []
        for row in suspects:
            if not self._may_try_again(row):
                self._write_error(row, "engine_died", reason)
                done.append(row)
        for row in lost:
            del self._sent[row]
            self._began.discard(row)
            self._ended.pop(row, None)
        return done

    def _is_on(self, replica: int, row: int) -> bool:
        sent = self._sent.get(row)
        return sent is not None and sent.replica == replica

    def _take_answers(self, replica: int, answers: Sequence[Answer]) -> Taken:
        good, again, refused = [], [], []
        for answer in answers:
            if not self._is_on(replica, answer.row):
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
        self._write(replica, good)
        for answer in refused:
            self._leave(answer.row)
            self._tally.failed += 1
            self._writer.write_refusal(answer)
        return Taken(again, unseen, [one.row for one in good + refused])

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

    def _write(self, replica: int, answers: Sequence[Answer]) -> None:
        if not answers:
            return
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
                    finished_s=self.now_s,
                    prompt_tokens=usage.prompt_tokens,
                    cached_tokens=cached,
                    output_tokens=usage.completion_tokens,
                    answers=count,
                    preemptions=sum(one.preemptions for one in ended) if ended else None,
                    attempts=self._failures.get(answer.row, 0) + 1,
                    replica=replica,
                    **self._writer.planned(answer.row),
                )

    def _leave(self, row: int) -> tuple[_Sent, list[Ended]]:
        """A request is done with its engine."""
        self._began.discard(row)
        return self._sent.pop(row), self._ended.pop(row, [])

    def _log(self, replica: int, steps: Sequence[StepWork]) -> None:
        for work in steps:
            self._steps.add(
                prefill_tokens=work.prefill_tokens,
                decode_tokens=work.decode_tokens,
                kv_tokens_read=work.kv_tokens_read,
                sequences=work.prefill_sequences + work.decode_tokens,
                prefill_pairs=work.prefill_pairs,
                time_s=work.time_s,
                end_s=self.now_s,
                kv_tokens_used=work.kv_tokens_used,
                running=work.running,
                waiting=work.waiting,
                replica=replica,
            )

    def _may_try_again(self, row: int) -> bool:
        """Whether a request that failed now has another attempt."""
        self._failures[row] = self._failures.get(row, 0) + 1
        return self._failures[row] <= self._retries

    def _write_error(self, row: int, code: str, message: str) -> None:
        self._tally.failed += 1
        self._writer.write_error(row, code, message)
