"""Results files: how long the outputs of requests that have run were."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.columns import Requests
from blendplan.requests.lines import count_lines, filled_lines
from blendplan.requests.read import read_requests
from blendplan.requests.record import MOST_TOKENS, BadRecordError, parse_line
from blendplan.requests.source import Source

_RIGHT = 'give OpenAI batch output lines or {"id": "...", "output_tokens": 12}'


@dataclass(frozen=True)
class Results:
    """The k answered requests of a results file, in file order, each id once.

    Attributes:
        name: the file, as it may stand in a message.
        ids: large_string [k].
        output_tokens: at least 1; int32 [k]. Of a request with several answers it is their mean:
            what is learned from it is the length of one.
        prompt_tokens: -1 where the file does not say; int32 [k].
        failed: lines that report an error, left out.
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

    JSONL, also .gz and .zst. Lines that report an error are counted, not used. Of several results
    with one id the last counts, as it does when a run was resumed.

    Raises:
        BlendplanError: the file cannot be read, a line is not a result, or no request succeeded.
    """
    found: dict[str, tuple[int, int]] = {}
    answered = failed = first_row = 0
    with Source(path) as source:
        if source.is_table:
            raise BlendplanError(f"{source.name} is not a results file of JSON lines; {_RIGHT}")
        for block in source.line_blocks():
            for row, line in filled_lines(block, first_row):
                try:
                    name, tokens = _result(parse_line(line))
                except BadRecordError as error:
                    raise BlendplanError(f"{source.name}, line {row + 1}: {error}") from error
                if tokens is None:
                    failed += 1
                else:
                    answered += 1
                    found[name] = tokens
            first_row += count_lines(block)
        if not found:
            why = f"all {failed} requests in it failed" if failed else "it has no line"
            raise BlendplanError(f"{source.name} holds no result ({why}); {_RIGHT}")
        tokens_of = np.array(list(found.values()), dtype=np.int32)
        return Results(
            name=source.name,
            ids=pa.array(list(found), pa.large_string()),
            output_tokens=np.maximum(tokens_of[:, 0], 1),
            prompt_tokens=tokens_of[:, 1],
            failed=failed,
            repeated=answered - len(found),
        )


def output_tokens_of(line: Mapping[str, Any]) -> int:
    """Output length that a results line tells, 0 where it tells none."""
    try:
        _, tokens = _result(line)
    except BadRecordError:
        return 0
    return 0 if tokens is None else tokens[0]


def read_history(files: str) -> Results:
    """Read ``RESULTS``, or ``RESULTS+REQUESTS`` with the request file that these results answer.

    Raises:
        BlendplanError: see `read_results` and `read_requests`.
    """
    results, plus, asked = files.partition("+")
    if not plus or Path(files).exists():
        return read_results(files)
    return replace(read_results(results), requests=read_requests(asked))


def _result(line: Mapping[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """Id, and output and prompt tokens of one line; None in their place where it failed."""
    key = "id" if line.get("custom_id") is None else "custom_id"
    name = line.get(key)
    if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
        raise BadRecordError(f'"{key}" is {show(name)}, so it answers no request; {_RIGHT}')
    if line.get("error") is not None or ("response" in line and line["response"] is None):
        return str(name), None
    if "response" in line:
        response = _object(line, "response")
        status = response.get("status_code")
        if isinstance(status, int) and status >= 400:
            return str(name), None
        body = _object(response, "body")
        counts = _object(body, "usage")
        return str(name), (_tokens_of_one(body, counts), _prompt_tokens(counts))
    return str(name), (_count(line, "output_tokens"), _prompt_tokens(line))


def _tokens_of_one(body: Mapping[str, Any], counts: Mapping[str, Any]) -> int:
    """Mean length of the answers in a response, whose usage counts all of them together."""
    total, choices = _count(counts, "completion_tokens"), body.get("choices")
    if not isinstance(choices, list) or len(choices) < 2:
        return total
    # Where choices hold their tokens, these tell; usage may count more, as with "best_of".
    own = [choice.get("token_ids") for choice in choices if isinstance(choice, dict)]
    lists = [tokens for tokens in own if isinstance(tokens, list) and tokens]
    if len(lists) == len(choices):
        total = sum(map(len, lists))
    return round(total / len(choices))


def _object(fields: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = fields.get(key)
    if not isinstance(value, dict):
        raise BadRecordError(f'"{key}" is {show(value)}, not an object; {_RIGHT}')
    return value


def _count(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise BadRecordError(f'"{key}" is {show(value)}, not a number of tokens; {_RIGHT}')
    return value


def _prompt_tokens(fields: Mapping[str, Any]) -> int:
    return -1 if fields.get("prompt_tokens") is None else _count(fields, "prompt_tokens")
