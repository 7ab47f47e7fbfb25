"""`Unrun`: requests that have a line in the results without having run.

Planning left some out, which get an error; others are identical to one that runs, and get its
answer. Both get their lines when all that runs is done.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.planfile.rows import Work
from blendplan.replaying import result_lines as results
from blendplan.replaying.journal import Journal
from blendplan.requests.beside import NamedLine, as_number
from blendplan.requests.endpoints import SOURCE_COLUMNS
from blendplan.requests.record import compact_json, json_line
from blendplan.requests.repeats import Repeat, repeats_of, rows_with_repeats

_AT_ONCE = 1024


class Unrun:
    """Requests of a run that do not run: those left out, then those that others answer.

    Args:
        work: what runs.
        rejected: requests that planning left out, rows of `REJECTED`.
        has_repeats: whether the plan runs identical requests once.

    Attributes:
        source_rows: of each of them; int64 [m].
    """

    def __init__(self, work: Work, rejected: pa.Table, *, has_repeats: bool) -> None:
        self._rejected = rejected
        self._repeats: list[tuple[int, Repeat]] = [
            (row, repeat)
            for row in (rows_with_repeats(work.bodies) if has_repeats else ())
            for repeat in repeats_of(work.bodies[row].as_py())
        ]
        rows = rejected.column("source_row").to_pylist()
        rows += [repeat.source_row for _, repeat in self._repeats]
        self.source_rows: NDArray[np.int64] = np.array(rows, np.int64)

    def write(self, journal: Journal, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Append their lines to a journal; where each begins, int64 [m].

        Args:
            journal: of the run.
            offsets: of the line of each row that ran.
        """
        written: list[int] = []
        for start in range(0, self._rejected.num_rows, _AT_ONCE):
            some = self._rejected.slice(start, _AT_ONCE).to_pylist()
            written += journal.append([_rejected_line(one) for one in some])
        for start in range(0, len(self._repeats), _AT_ONCE):
            repeats = self._repeats[start : start + _AT_ONCE]
            answers = journal.lines(int(offsets[row]) for row, _ in repeats)
            both = zip(answers, repeats, strict=True)
            written += journal.append([_repeated_line(answer, one) for answer, (_, one) in both])
        return np.array(written, np.int64)

    def requests(self) -> Iterator[NamedLine]:
        """What a table of results says of them, in their order."""
        for name in self._rejected.column("request_id").to_pylist():
            yield NamedLine(as_number(name), None)
        for _, repeat in self._repeats:
            yield NamedLine(repeat.id, json_line({SOURCE_COLUMNS: repeat.source}))


def _rejected_line(rejected: Mapping[str, Any]) -> bytes:
    """The line of a request that planning left out, as a server would have refused it."""
    error = {"code": rejected["code"], "message": rejected["message"]}
    return results.answer_line(
        source_row=rejected["source_row"],
        custom_id=rejected["request_id"],
        status=rejected["status"],
        body=compact_json({"error": error}).encode(errors="replace"),
    )


def _repeated_line(answer: bytes, repeat: Repeat) -> bytes:
    """The line of a request that another one answers."""
    line = json.loads(answer)
    return results.renamed(line | {"custom_id": repeat.id}, source_row=repeat.source_row)
