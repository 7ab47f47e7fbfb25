"""`Work`: the requests of a run, row by row."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.planfile.assemble import bodies_of, prompt_lists
from blendplan.planfile.plan import Plan
from blendplan.requests.columns import Requests


@dataclass(frozen=True)
class Work:
    """n requests in the order of the plan.

    Attributes:
        ids: request ids, Arrow string [n].
        source_row: row in the request file; int64 [n].
        prompt_tokens: prompt length, an estimate where ``prompt_token_ids`` is null; int32 [n].
        output_tokens: known output length, -1 where it is not known; int32 [n].
        prompt_token_ids: Arrow list<int32> [n], null where lengths are estimates.
        bodies: each request's own JSON, Arrow binary [n], null where it had none.
    """

    ids: pa.ChunkedArray
    source_row: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    prompt_token_ids: pa.ChunkedArray
    bodies: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.source_row)

    def request_id(self, row: int) -> str:
        """The id of one request."""
        return str(self.ids[row].as_py())


def work_of_requests(requests: Requests) -> Work:
    """Requests in the order of their file."""
    rows = np.arange(len(requests), dtype=np.int64)
    chunks = [prompt_lists(requests, rows), bodies_of(requests, rows)]
    prompts, bodies = (pa.chunked_array([chunk]) for chunk in chunks)
    return Work(
        ids=pa.chunked_array([requests.ids.cast(pa.string())]),
        source_row=requests.source_row,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        prompt_token_ids=prompts,
        bodies=bodies,
    )


def work_of(plan: Plan) -> Work:
    """The requests of a plan."""
    table = plan.table
    known = table.column("output_tokens_known").fill_null(-1)
    return Work(
        ids=table.column("request_id"),
        source_row=plan.column("source_row"),
        prompt_tokens=plan.column("prompt_tokens"),
        output_tokens=known.to_numpy(),
        prompt_token_ids=table.column("prompt_token_ids"),
        bodies=table.column("body"),
    )
