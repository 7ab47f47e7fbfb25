"""`ResultsWriter`: from what an engine answers to lines on disk, once per request."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.protocol import Answer
from blendplan.errors import BlendplanError
from blendplan.planfile.rows import Work
from blendplan.printable import show
from blendplan.replaying import result_lines as results
from blendplan.replaying.job import Job
from blendplan.replaying.journal import Journal, WriteLines, is_header, write_lines
from blendplan.replaying.result_table import write_table
from blendplan.replaying.unrun import Unrun
from blendplan.requests.batch_output import failed, length_of, output_lines
from blendplan.requests.beside import NamedLine, as_number, beside_of, has_numbers_as_ids
from blendplan.requests.record import stated_id


class ResultsWriter:
    """Writes the results of a run and knows which requests have one.

    Args:
        job: what is run.
        journal: where lines go; None keeps none.

    Attributes:
        done: whether the request of a row has its line, or is not to run; bool [n].
        output_tokens: output length of each row that has an answer, else 0; int32 [n].
    """

    def __init__(self, job: Job, journal: Journal | None) -> None:
        self._work = job.rows
        self._left_out = np.zeros(len(self._work), bool) if job.left_out is None else job.left_out
        self.done = self._left_out.copy()
        self.output_tokens = np.zeros(len(self._work), dtype=np.int32)
        self._planned = job.planned
        self._unrun = Unrun(self._work, job.rejected, has_repeats=job.repeats > 0)
        self._columns = job.columns
        self._are_numbers = has_numbers_as_ids(job.columns)
        self._journal = journal
        self._offsets = np.full(len(self._work), -1, dtype=np.int64)

    def recover(self) -> int:
        """Take over what an interrupted run has written; returns the number of answers.

        Requests with an error line get another chance.

        Raises:
            BlendplanError: the journal is another run's.
        """
        if self._journal is None:
            return 0
        superfluous = False
        for offset, row, line in self._journal.resume(_RowFinder(self._work, self._unrun).of):
            if row >= len(self._work) or failed(line) or self.done[row]:
                superfluous = True
            else:
                self._mark(row)
                self._note_length(row, length_of(line))
                self._offsets[row] = offset
        if superfluous or self._journal.damaged:
            kept = self._answered()
            kept = kept[np.argsort(self._offsets[kept])]
            self._offsets[kept] = self._journal.rewrite(map(int, self._offsets[kept]))
        return len(self._answered())

    def recognise(self, output: Path) -> tuple[int, int]:
        """Check that a file holds the whole results of this plan; its answers and errors.

        Raises:
            BlendplanError: it does not.
        """
        rows = _RowFinder(self._work, self._unrun)
        answers = errors = 0
        for number, line in output_lines(output):
            row = rows.of(line)
            if row >= len(self._work):
                continue
            if row < 0 or self.done[row]:
                raise BlendplanError(
                    f"{output}, line {number}: request {show(line.get('custom_id'))} is not in "
                    f"this plan, or there twice; give another output path"
                )
            self._mark(row)
            errors += failed(line)
            answers += not failed(line)
        if not self.done.all():
            raise BlendplanError(
                f"{output} lacks {int((~self.done)[self._work.firsts].sum())} requests of this "
                "plan and has no "
                f"journal to resume from; give another output path"
            )
        return answers, errors

    def check_answers(self, path: Path) -> None:
        """Read another results file through before anything of it is taken.

        Raises:
            BlendplanError: the file cannot be read, holds something else, or nothing of this plan.
        """
        if all(row is None for row, _ in self._lines_of(path)):
            raise BlendplanError(
                f"{path} holds no result of a request of this plan; give the results of a sample "
                f"or of an earlier run of the same requests"
            )

    def adopt(self, path: Path) -> int:
        """Take answers from another results file, such as a sampling run's; how many.

        Raises:
            BlendplanError: the file cannot be read or holds something else.
        """
        taken = 0
        for row, line in self._lines_of(path):
            if row is None or self.done[row] or failed(line):
                continue
            source_row = int(self._work.source_row[row])
            self._append([row], [results.renamed(line, source_row=source_row)])
            self._note_length(row, length_of(line))
            taken += 1
        return taken

    def _lines_of(self, path: Path) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
        """Lines of a results file, or of a journal, each with the row that it answers."""
        row_of = {self._work.request_id(row): row for row in self._work.firsts.tolist()}
        for number, line in output_lines(path):
            if number == 1 and is_header(line):
                continue
            if not {"custom_id", "response"} <= line.keys():
                raise BlendplanError(
                    f"{path}, line {number}: not a batch output line; give a results file of a "
                    "replay"
                )
            name = line["custom_id"]
            yield row_of.get(str(name)) if isinstance(name, str | int) else None, line

    def write_answers(self, answers: Sequence[Answer]) -> None:
        """Write what the engine's server answered to requests."""
        self._append([answer.row for answer in answers], [self._line(one) for one in answers])

    def write_refusal(self, answer: Answer) -> None:
        """Write what the engine's server said instead of an answer."""
        self._append([answer.row], [self._line(answer)])

    def write_error(self, row: int, code: str, message: str) -> None:
        """Write the error line of a request that no server answered."""
        line = results.error_line(
            source_row=int(self._work.source_row[row]),
            custom_id=self._name(row),
            code=code,
            message=message,
        )
        self._append([row], [line])

    def note_length(self, first: int, completion_tokens: int) -> None:
        """The answers to the request with this first row have so many tokens together."""
        self._note_length(first, completion_tokens // len(self._work.rows_of(first)))

    def _line(self, answer: Answer) -> bytes:
        return results.answer_line(
            source_row=int(self._work.source_row[answer.row]),
            custom_id=self._name(answer.row),
            status=answer.status,
            body=answer.body,
        )

    def _name(self, row: int) -> str | int:
        """The id of a request as it came: plans keep numbers as text."""
        name = stated_id(self._work.request_id(row), self._work.bodies[row].as_py())
        return as_number(name) if self._are_numbers else name

    def planned(self, row: int) -> dict[str, Any]:
        """Which request it is, and what was planned for it, for the request log."""
        known = {
            "request_id": self._work.request_id(row),
            "source_row": int(self._work.source_row[row]),
        }
        if self._planned is None:
            return known
        rows = self._work.rows_of(row)
        planned = self._planned.slice(row, len(rows)).to_pydict()
        return known | {
            "planned_start_s": planned["start_s"][0],
            "planned_finish_s": max(planned["finish_s"]),
            "planned_output_tokens": sum(planned["output_tokens_mean"]),
        }

    def complete(self) -> None:
        """Every request has its line: give the results file its final form.

        Requests that do not run get theirs now.
        """
        if self._journal is None:
            return
        firsts = self._answered()
        unrun = self._unrun.write(self._journal, self._offsets)
        offsets = np.append(self._offsets[firsts], unrun)
        places = np.append(self._work.source_row[firsts], self._unrun.source_rows)
        by = places if self._journal.order == "input" else offsets
        order = np.argsort(by, kind="stable")
        write = self._table_writer(firsts, order) if self._journal.is_table else write_lines
        self._journal.complete(map(int, offsets[order]), write)

    def _table_writer(self, firsts: NDArray[np.int64], order: NDArray[np.int64]) -> WriteLines:
        """What makes a table of lines: of first answers, then of the unrun, in an order."""

        def requests() -> Iterator[NamedLine]:
            unrun = list(self._unrun.requests())
            for place in order.tolist():
                if place < len(firsts):
                    row = int(firsts[place])
                    yield NamedLine(self._name(row), self._work.bodies[row].as_py())
                else:
                    yield unrun[place - len(firsts)]

        def write(lines: Iterator[bytes], file: IO[bytes]) -> None:
            write_table(lines, beside_of(requests(), self._columns), requests(), file)

        return write

    def close(self) -> None:
        """Let go of the journal; it stays for the next session if there is anything in it."""
        if self._journal is None:
            return
        self._journal.close()
        if not len(self._answered()):
            self._journal.discard()

    def _append(self, rows: Iterable[int], lines: list[bytes]) -> None:
        for row in (marked := list(rows)):
            self._mark(row)
        if self._journal is not None:
            for row, offset in zip(marked, self._journal.append(lines), strict=True):
                self._offsets[row] = offset

    def _mark(self, first: int) -> None:
        """The request with this first row has its line, and with it all of its answers."""
        rows = self._work.rows_of(first)
        self.done[rows.start : rows.stop] = True

    def _note_length(self, first: int, tokens: int) -> None:
        """Each answer of the request with this first row has about so many tokens."""
        rows = self._work.rows_of(first)
        self.output_tokens[rows.start : rows.stop] = tokens

    def _answered(self) -> NDArray[np.int64]:
        """First row of each request that has its line; int64."""
        return self._work.firsts[(self.done & ~self._left_out)[self._work.firsts]]


_LAST_ROW = (1 << 63) - 1  # that a plan can name


class _RowFinder:
    """Rows of a plan by what its result lines say of themselves.

    Args:
        work: n sequences.
        unrun: requests that do not run; they have the rows from n on.
    """

    def __init__(self, work: Work, unrun: Unrun) -> None:
        self._work = work
        self._unrun = set(unrun.source_rows.tolist())
        self._rows = work.firsts[np.argsort(work.source_row[work.firsts])]
        self._source_rows = work.source_row[self._rows]

    def of(self, line: Mapping[str, Any]) -> int:
        """The row that a line answers, -1 where it answers no request of the plan."""
        source_row = results.source_row(line)
        if not 0 <= source_row <= _LAST_ROW:
            return -1
        if source_row in self._unrun:
            return len(self._work)
        place = int(np.searchsorted(self._source_rows, source_row))
        if place == len(self._source_rows) or self._source_rows[place] != source_row:
            return -1
        row = int(self._rows[place])
        name = line.get("custom_id")
        is_named = isinstance(name, str | int) and str(name) == self._work.request_id(row)
        return row if is_named else -1
