"""`Work`: the requests of a run, row by row."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.planfile.assemble import bodies_of, prompt_lists
from blendplan.planfile.plan import Plan
from blendplan.requests.columns import Requests
from blendplan.requests.sequences import sequences_of


@dataclass(frozen=True)
class Work:
    """n sequences in the order of the plan, the answers of each request one after the other.

    Attributes:
        ids: request ids, Arrow string [n].
        source_row: row in the request file; int64 [n].
        answer: which answer of its request each is, from 0; int32 [n].
        prompt_tokens: prompt length, an estimate where ``prompt_token_ids`` is null; int32 [n].
        output_tokens: known output length, -1 where it is not known; int32 [n].
        max_tokens: cap on the output length, -1 where there is none; int32 [n].
        prompt_token_ids: Arrow list<int32> [n], null where lengths are estimates, and for all
            answers of a request but the first.
        bodies: each request's own JSON, Arrow binary [n], null where it had none, and for all
            answers of a request but the first.
    """

    ids: pa.ChunkedArray
    source_row: NDArray[np.int64]
    answer: NDArray[np.int32]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    max_tokens: NDArray[np.int32]
    prompt_token_ids: pa.ChunkedArray
    bodies: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.source_row)

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """Row of the first answer of each request, by which the request is named; int64."""
        return np.flatnonzero(self.answer == 0)

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """For each row, that of the first answer of the same request; int64 [n]."""
        return np.arange(len(self)) - self.answer

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """The first row after those of each request; int64."""
        return np.append(self.firsts[1:], len(self))

    def first(self, row: int) -> int:
        """Row of the first answer of the same request."""
        return row - int(self.answer[row])

    def rows_of(self, first: int) -> range:
        """Rows of all answers of the request with this first row."""
        if len(self.firsts) == len(self):
            return range(first, first + 1)
        place = int(np.searchsorted(self.firsts, first))
        return range(first, int(self._ends[place]))

    def request_id(self, row: int) -> str:
        """The id of one request."""
        return str(self.ids[row].as_py())


def work_of_requests(requests: Requests) -> Work:
    """The sequences of requests, in the order of their file."""
    sequences = sequences_of(requests)
    answer = sequences.answer
    rows = sequences.spread(np.arange(len(requests), dtype=np.int64))
    texts = pa.array(rows, mask=answer > 0)
    chunks = [prompt_lists(requests, texts), bodies_of(requests, texts)]
    prompts, bodies = (pa.chunked_array([chunk]) for chunk in chunks)
    return Work(
        ids=pa.chunked_array([requests.ids.cast(pa.string()).take(pa.array(rows))]),
        source_row=requests.source_row[rows],
        answer=answer,
        prompt_tokens=requests.prompt_tokens_of(rows),
        output_tokens=requests.output_tokens[rows],
        max_tokens=requests.max_tokens[rows],
        prompt_token_ids=prompts,
        bodies=bodies,
    )


def work_of(plan: Plan) -> Work:
    """The sequences of a plan."""
    table = plan.table
    known = table.column("output_tokens_known").fill_null(-1)
    return Work(
        ids=table.column("request_id"),
        source_row=plan.column("source_row"),
        answer=plan.column("answer"),
        prompt_tokens=plan.column("prompt_tokens"),
        output_tokens=known.to_numpy(),
        max_tokens=table.column("max_tokens").fill_null(-1).to_numpy(),
        prompt_token_ids=table.column("prompt_token_ids"),
        bodies=table.column("body"),
    )
