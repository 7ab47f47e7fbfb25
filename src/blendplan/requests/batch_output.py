"""Lines of a batch output file: which request each names, and what became of it.

Results of `blendplan replay`, of OpenAI's and other services, and of the engines' own batch runners
are read here and nowhere else, so that a line which is no answer is none to anybody.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.lines import count_lines, filled_lines
from blendplan.requests.output_table import table_lines
from blendplan.requests.record import MOST_TOKENS, BadRecordError, parse_line
from blendplan.requests.source import Source

RIGHT = 'give OpenAI batch output lines or {"id": "...", "output_tokens": 12}'
_OUTPUT_COUNTS = ("completion_tokens", "output_tokens")  # of completions, of /v1/responses
_PROMPT_COUNTS = ("prompt_tokens", "input_tokens")
_NOT_WRITTEN = ("data", "results")  # bodies of embeddings, scores and rankings


def output_lines(path: Path | str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The lines of a batch output file, each with its number from 1; also .gz, .zst and Parquet.

    Raises:
        BlendplanError: the file cannot be read, or a line is no JSON object.
    """
    with Source(path) as source:
        if source.kind == "parquet":
            yield from table_lines(source.path, source.name)
            return
        if source.is_table:
            raise BlendplanError(f"{source.name} is not a results file of JSON lines; {RIGHT}")
        first = 1
        for block in source.line_blocks():
            for number, line in filled_lines(block, first):
                try:
                    yield number, _fields(line)
                except BadRecordError as error:
                    raise BlendplanError(f"{source.name}, line {number}: {error}") from error
            first += count_lines(block)


def _fields(line: bytes) -> Mapping[str, Any]:
    """A line parsed; engines write numbers into results that JSON has not, such as NaN."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) else parse_line(line)


def named(line: Mapping[str, Any]) -> str:
    """Id of the request that a line answers; a number is the text that requests are known by.

    Raises:
        BadRecordError: it names none.
    """
    key = "id" if line.get("custom_id") is None else "custom_id"
    name = line.get(key)
    if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
        raise BadRecordError(f'"{key}" is {show(name)}, so it answers no request; {RIGHT}')
    return str(name)


def answer_in(line: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Body of the answer in a line, None where it reports that there is none.

    Whether there is one is told by the error, by the status (2xx or not stated) and by the body,
    each by itself: services leave out the one or the other.

    Raises:
        BadRecordError: it is no line of a batch output file.
    """
    if "response" not in line:
        raise BadRecordError(f'no "response"; {RIGHT}')
    if line.get("error") is not None or line["response"] is None:
        return None
    response = _object(line, "response")
    if not _is_success(response.get("status_code")):
        return None
    body = _object(response, "body")
    return None if body.get("error") is not None else body


def failed(line: Mapping[str, Any]) -> bool:
    """Whether a line holds no answer, whatever it holds."""
    try:
        return not answer_in(line)
    except BadRecordError:
        return True


def tokens_of(line: Mapping[str, Any]) -> tuple[int, int] | None:
    """Output tokens, and prompt tokens or -1, that a line tells; None where it tells no length.

    It tells none where it is no answer, and where the answer is nothing that a model wrote:
    embeddings, scores. Of several answers to a request it tells their mean length. A plain line
    with ``output_tokens`` is an answer too.

    Raises:
        BadRecordError: it is no result, or an answer that does not say how long it is.
    """
    if "response" not in line:
        return None if line.get("error") is not None else _counts(line, _OUTPUT_COUNTS[1:])
    body = answer_in(line)
    if body is None:
        return None
    if any(isinstance(body.get(key), list) for key in _NOT_WRITTEN):
        return None
    output_tokens, prompt_tokens = _counts(_object(body, "usage"), _OUTPUT_COUNTS)
    return _of_one(body, output_tokens), prompt_tokens


def length_of(line: Mapping[str, Any]) -> int:
    """Output length that a line of any kind tells, 0 where it tells none."""
    try:
        tokens = tokens_of(line)
    except BadRecordError:
        return 0
    return 0 if tokens is None else tokens[0]


def _counts(fields: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[int, int]:
    output_tokens = _count(fields, keys)
    told = any(fields.get(key) is not None for key in _PROMPT_COUNTS)
    return output_tokens, _count(fields, _PROMPT_COUNTS) if told else -1


def _count(fields: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    key = next((key for key in keys if fields.get(key) is not None), keys[0])
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise BadRecordError(f'"{key}" is {show(value)}, not a number of tokens; {RIGHT}')
    return value


def _of_one(body: Mapping[str, Any], total: int) -> int:
    """Mean length of the answers in a response, whose usage counts all of them together."""
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) < 2:
        return total
    # Where choices hold their tokens, these tell; usage may count more.
    own = [choice.get("token_ids") for choice in choices if isinstance(choice, dict)]
    lists = [tokens for tokens in own if isinstance(tokens, list) and tokens]
    if len(lists) == len(choices):
        total = sum(map(len, lists))
    return round(total / len(choices))


def _is_success(status: object) -> bool:
    """Whether a status is 2xx, or not stated."""
    if isinstance(status, str) and status.isascii() and status.isdecimal():
        status = int(status[:4])
    return status is None or (isinstance(status, int | float) and 200 <= status < 300)


def _object(fields: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = fields.get(key)
    if not isinstance(value, dict):
        raise BadRecordError(f'"{key}" is {show(value)}, not an object; {RIGHT}')
    return value
