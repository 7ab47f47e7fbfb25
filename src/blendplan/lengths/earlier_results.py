"""Results files: how long the outputs of requests that have run were."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.printable import printable
from blendplan.requests.batch_output import RIGHT, failed, named, output_lines, tokens_of
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests
from blendplan.requests.record import BadRecordError


@dataclass(frozen=True)
class Results:
    """The k answered requests of a results file, in file order, each id once.

    Attributes:
        name: the file, as it may stand in a message.
        ids: large_string [k].
        output_tokens: at least 1; int32 [k]. Of a request with several answers it is their mean:
            what is learned from it is the length of one.
        prompt_tokens: -1 where the file does not say; int32 [k].
        failed: lines without an answer, left out.
        repeated: lines whose id a later line has too, left out.
        requests: what they answer, where a predictor was given that; None otherwise.
    """

    name: str
    ids: pa.Array
    output_tokens: NDArray[np.int32]
    prompt_tokens: NDArray[np.int32]
    failed: int
    repeated: int
    requests: Requests | None = None

    def __len__(self) -> int:
        return len(self.output_tokens)

    def rows_in(self, ids: pa.Array) -> NDArray[np.int64]:
        """Index of each result's id among ``ids``, -1 where it is not one of them; int64 [k]."""
        rows: NDArray[np.int64] = (
            pc.fill_null(pc.index_in(self.ids, value_set=ids), -1).to_numpy().astype(np.int64)
        )
        return rows


def read_results(path: Path | str) -> Results:
    """Read OpenAI batch output lines, or plain lines with ``id`` and ``output_tokens``.

    JSONL, also .gz and .zst. Lines without an answer are counted, not used; answers without a
    length, such as embeddings, are passed over. Of several results with one id the last counts, as
    it does when a run was resumed.

    Raises:
        BlendplanError: the file cannot be read, a line is not a result, or no request succeeded.
    """
    found: dict[str, tuple[int, int]] = {}
    answered = lost = silent = 0
    name = printable(str(path))
    for number, line in output_lines(path):
        try:
            request, tokens = named(line), tokens_of(line)
        except BadRecordError as error:
            raise BlendplanError(f"{name}, line {number}: {error}") from error
        if tokens is not None:
            answered += 1
            found[request] = tokens
        elif failed(line):
            lost += 1
        else:
            silent += 1
    if not found:
        why = f"all {lost} requests in it failed" if lost else "it has no line"
        if silent:
            why = f"{silent} answers in it have no length, as embeddings have none"
        raise BlendplanError(f"{name} holds no result ({why}); {RIGHT}")
    counts = np.array(list(found.values()), dtype=np.int32)
    return Results(
        name=name,
        ids=pa.array(list(found), pa.large_string()),
        output_tokens=np.maximum(counts[:, 0], 1),
        prompt_tokens=counts[:, 1],
        failed=lost,
        repeated=answered - len(found),
    )


def read_history(files: str) -> Results:
    """Read ``RESULTS``, or ``RESULTS+REQUESTS`` with the request file that these results answer.

    Raises:
        BlendplanError: see `read_results` and `read_requests`.
    """
    results, plus, asked = files.partition("+")
    if not plus or Path(files).exists():
        return read_results(files)
    return replace(read_results(results), requests=read_requests(asked))
