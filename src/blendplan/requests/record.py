"""One line or row of a request file, checked field by field: the exact definition of the format.

The fast readers (`json_blocks`, `tables`) take only what they can show to be good and leave the
rest to this module, so that a request means the same whichever way it was read.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from blendplan.printable import show
from blendplan.requests.bad import BadRecordError as BadRecordError
from blendplan.requests.bad import utf8 as utf8
from blendplan.requests.endpoints import (
    COMPLETION_TOKENS,
    COMPLETIONS,
    RESPONSES,
    WITHOUT_OUTPUT,
    endpoint_of,
)
from blendplan.requests.foreign import foreign_format
from blendplan.requests.messages import Message
from blendplan.requests.prompts import LARGEST_TOKEN_ID as LARGEST_TOKEN_ID
from blendplan.requests.prompts import read_prompt

MOST_TOKENS = 1_000_000_000  # an output length or cap above this is a mistake
MOST_ANSWERS = 16_384  # more "n" than vLLM takes (VLLM_MAX_N_SEQUENCES), so a mistake
_MOST_DIGITS = 10
_PROMPTS = ("prompt", "prompt_token_ids", "messages")


class Record(NamedTuple):
    """One good request: exactly one of `token_ids`, `texts` and `messages` is set.

    `max_tokens` and `output_tokens` are -1 where the request does not state them; of several
    answers, both are of each. A request that ends with its prefill has the cap 1. `answers` is how
    many sequences the request runs: its `n`. `body` is where the
    sampling parameters are: the inner body of a batch line, else the line itself. `prompt_tokens`
    is the length of the prompt where the request states it, else -1.
    """

    id: str | None
    token_ids: list[int] | None
    texts: tuple[str, ...]
    messages: list[Message] | None
    max_tokens: int
    output_tokens: int
    answers: int
    body: Mapping[str, Any]
    endpoint: str
    prompt_tokens: int

    @property
    def text(self) -> str | None:
        """The only text; None where there is none or several."""
        return self.texts[0] if len(self.texts) == 1 else None


def parse_line(line: bytes) -> Mapping[str, Any]:
    """Parse one line as a JSON object.

    Raises:
        BadRecordError: not UTF-8, not JSON, or not an object.
    """
    try:
        fields = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRecordError(
            f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8; "
            "save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        near = show(error.doc[max(0, error.pos - 12) : error.pos + 12])
        raise BadRecordError(
            f"not JSON ({error.msg.lower()} at column {error.colno}, near {near}); "
            "each line must be one whole JSON object"
        ) from error
    except RecursionError as error:
        raise BadRecordError("nested too deeply; a request is a flat JSON object") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadRecordError(f"not usable JSON ({str(error).split(';')[0]})") from error
    if not isinstance(fields, dict):
        raise BadRecordError(
            f"the line is {show(fields)}, not a JSON object; "
            'write {"prompt": "..."} or an OpenAI batch line'
        )
    return fields


def read_record(fields: Mapping[str, Any]) -> Record:
    """Check one line or row and pick out what planning needs.

    Raises:
        BadRecordError: a field is missing, of the wrong type or out of range.
    """
    body = fields.get("body")
    asked = None
    if body is None:
        _refuse_other_formats(fields)
        body = fields
    elif not isinstance(body, dict):
        raise BadRecordError(f'"body" is {show(body)}; it must be a JSON object')
    elif fields.get("url") is not None:
        try:
            asked = endpoint_of(fields["url"])
        except ValueError as error:
            raise BadRecordError(str(error)) from None
    prompt, endpoint = read_prompt(body, asked)
    _check_format(body.get("response_format"))
    output_tokens = stated_count(fields, body, "output_tokens")
    prompt_tokens = stated_count(fields, body, "prompt_tokens")
    max_tokens = _read_cap(body, endpoint)
    answers = read_answers(body)
    if endpoint in WITHOUT_OUTPUT or max_tokens == 0:
        max_tokens = 1
    elif max_tokens < 0 and output_tokens < 0 and asked == COMPLETIONS:
        max_tokens = COMPLETION_TOKENS
    return Record(
        id=_read_id(fields),
        token_ids=prompt.token_ids,
        texts=prompt.texts,
        messages=prompt.messages,
        max_tokens=max_tokens,
        output_tokens=output_tokens,
        answers=answers,
        body=body,
        endpoint=endpoint,
        prompt_tokens=prompt_tokens,
    )


def _refuse_other_formats(fields: Mapping[str, Any]) -> None:
    """Refuse lines that are for the batches of another service, or lack their body."""
    if not any(fields.get(name) is not None for name in _PROMPTS) and (
        found := foreign_format(fields)
    ):
        raise BadRecordError(found)
    if fields.get("custom_id") is not None and fields.get("url") is not None:
        raise BadRecordError('a batch line without "body"; put the request under "body"')


def _check_format(asked: object) -> None:
    """Refuse a schema that stands where no server looks for it."""
    if isinstance(asked, dict) and asked.get("type") == "json_schema":
        if asked.get("json_schema") is not None:
            return
        found = '; it has "schema" beside it' if "schema" in asked else ""
        raise BadRecordError(
            f'"response_format" of type "json_schema" has no "json_schema"{found}; write '
            '{"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}'
        )


def _read_cap(body: Mapping[str, Any], endpoint: str) -> int:
    """The cap on the output of a body, from 0; -1 where it states none."""
    if endpoint == RESPONSES:
        return read_count(body, "max_output_tokens", least=0)
    newer = read_count(body, "max_completion_tokens", least=0)
    older = read_count(body, "max_tokens", least=0)
    return older if newer < 0 else newer


def read_answers(body: Mapping[str, Any]) -> int:
    """How many sequences a request runs: its "n", else 1; servers pass over "best_of".

    Raises:
        BadRecordError: one of them is no whole number from 1 to `MOST_ANSWERS`.
    """
    return max(1, read_count(body, "n", MOST_ANSWERS))


def compact_json(value: Any) -> str:
    """JSON on one line, non-ASCII characters as they are.

    Raises:
        BadRecordError: nested too deeply.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except RecursionError as error:
        raise BadRecordError("nested too deeply; a request is a flat JSON object") from error


def json_line(value: Any) -> bytes:
    """The same in UTF-8.

    Raises:
        BadRecordError: nested too deeply.
    """
    try:
        return compact_json(value).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can express
        return json.dumps(value, separators=(",", ":")).encode()


def stated_id(request_id: str, body: bytes | None) -> str | int:
    """The id as the request's own line has it, which may be a number.

    Args:
        request_id: as planned, a text.
        body: the line, None where there is none.
    """
    if body is None or not request_id.removeprefix("-").isdecimal():
        return request_id
    try:
        found = _id_value(parse_line(body))
    except BadRecordError:
        return request_id
    return found if type(found) is int and str(found) == request_id else request_id


def _id_value(fields: Mapping[str, Any]) -> Any:
    key = "custom_id" if fields.get("custom_id") is not None else "id"
    return fields.get(key)


def _read_id(fields: Mapping[str, Any]) -> str | None:
    value = _id_value(fields)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    key = "custom_id" if fields.get("custom_id") is not None else "id"
    if not isinstance(value, str) or not value:
        raise BadRecordError(
            f'"{key}" is {show(value)}; give a text that is not empty or a whole number, or leave '
            "it out"
        )
    utf8(value, f'"{key}"')
    return value


def read_count(
    fields: Mapping[str, Any], key: str, most: int = MOST_TOKENS, *, least: int = 1
) -> int:
    """A whole number from `least` to `most`, or -1 where it is not stated.

    Raises:
        BadRecordError: it is none.
    """
    value = fields.get(key)
    if value is None:
        return -1
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # spreadsheet tools write 100 as 100.0
    elif isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS:
        value = int(value)  # as servers read it
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRecordError(
            f'"{key}" is {show(value)}; give a whole number from {least} to {most} or leave it out'
        )
    return value


def stated_count(fields: Mapping[str, Any], body: Mapping[str, Any], key: str) -> int:
    """A count that stands beside the body or in it, -1 where it is not stated.

    Raises:
        BadRecordError: it is no count.
    """
    count = read_count(fields, key)
    return read_count(body, key) if count < 0 else count


def _refuse_constant(name: str) -> NoReturn:
    raise BadRecordError(f"{name} is not JSON; give a number or leave the field out")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
