"""One line or row of a request file, checked field by field: the exact definition of the format.

The fast readers (`json_blocks`, `tables`) take only what they can show to be good and leave the
rest to this module, so that a request means the same whichever way it was read.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from blendplan.printable import show

MOST_TOKENS = 1_000_000_000  # an output length or cap above this is a mistake
MOST_ANSWERS = 16_384  # more "n" than vLLM takes (VLLM_MAX_N_SEQUENCES), so a mistake
LARGEST_TOKEN_ID = 2**31 - 1

_KIND_OF_URL = {"/chat/completions": "messages", "/completions": "prompt"}


class BadRecordError(Exception):
    """What is wrong with one line or row, and what would be right; the reader adds where."""


class Record(NamedTuple):
    """One good request: exactly one of `token_ids`, `text` and `messages` is set.

    `max_tokens` and `output_tokens` are -1 where the request does not state them; of several
    answers, both are of each. `answers` is how many sequences the request runs: its `n`, or
    `best_of` where that is more. `body` is where the sampling parameters are: the inner body of a
    batch line, else the line itself.
    """

    id: str | None
    token_ids: list[int] | None
    text: str | None
    messages: list[dict[str, Any]] | None
    max_tokens: int
    output_tokens: int
    answers: int
    body: Mapping[str, Any]


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
        if fields.get("custom_id") is not None and fields.get("url") is not None:
            raise BadRecordError('a batch line without "body"; put the request under "body"')
        body = fields
    elif not isinstance(body, dict):
        raise BadRecordError(f'"body" is {show(body)}; it must be a JSON object')
    else:
        asked = kind_asked_by_url(fields.get("url"))
    token_ids, text, messages = _read_prompt(body, asked)
    max_tokens = _read_count(body, "max_completion_tokens")
    other_cap = _read_count(body, "max_tokens")
    output_tokens = _read_count(fields, "output_tokens")
    if output_tokens < 0:
        output_tokens = _read_count(body, "output_tokens")
    return Record(
        id=_read_id(fields),
        token_ids=token_ids,
        text=text,
        messages=messages,
        max_tokens=other_cap if max_tokens < 0 else max_tokens,
        output_tokens=output_tokens,
        answers=read_answers(body),
        body=body,
    )


def read_answers(body: Mapping[str, Any]) -> int:
    """How many sequences a request runs: its "n", or "best_of" where that is more, else 1.

    Raises:
        BadRecordError: one of them is no whole number from 1 to `MOST_ANSWERS`.
    """
    return max(1, *(_read_count(body, key, MOST_ANSWERS) for key in ("n", "best_of")))


def utf8(text: str, what: str) -> bytes:
    """Encode `text`.

    Raises:
        BadRecordError: it holds half a surrogate pair, which no UTF-8 text can.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecordError(
            f"{what} holds half a surrogate pair (\\u{ord(text[error.start]):04x}); "
            "write the whole character"
        ) from error


def compact_json(value: Any) -> str:
    """JSON on one line, non-ASCII characters as they are.

    Raises:
        BadRecordError: nested too deeply.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except RecursionError as error:
        raise BadRecordError("nested too deeply; a request is a flat JSON object") from error


def _read_id(fields: Mapping[str, Any]) -> str | None:
    key = "custom_id" if fields.get("custom_id") is not None else "id"
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise BadRecordError(f'"{key}" is {show(value)}; give a non-empty string or leave it out')
    utf8(value, f'"{key}"')
    return value


def _read_count(fields: Mapping[str, Any], key: str, most: int = MOST_TOKENS) -> int:
    """A number from 1, or -1 where it is not stated."""
    value = fields.get(key)
    if value is None:
        return -1
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # spreadsheet tools write 100 as 100.0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadRecordError(
            f'"{key}" is {show(value)}; give a whole number from 1 to {most} or leave it out'
        )
    return value


def kind_asked_by_url(url: object) -> str | None:
    """The field that a batch line's endpoint needs, None where there is no url."""
    if url is None:
        return None
    if isinstance(url, str):
        for ending, kind in _KIND_OF_URL.items():
            if url.endswith(ending):
                return kind
    raise BadRecordError(
        f'"url" is {show(url)}; only /v1/chat/completions and /v1/completions can be planned'
    )


def _read_prompt(
    body: Mapping[str, Any], asked: str | None
) -> tuple[list[int] | None, str | None, list[dict[str, Any]] | None]:
    token_ids, prompt, messages = (
        body.get("prompt_token_ids"),
        body.get("prompt"),
        body.get("messages"),
    )
    if prompt is not None and messages is not None:
        raise BadRecordError('both "prompt" and "messages"; give one of them')
    if asked == "messages" and messages is None:
        raise BadRecordError('"url" is /v1/chat/completions but "body" has no "messages"')
    if asked == "prompt" and messages is not None:
        raise BadRecordError('"url" is /v1/completions but "body" has "messages", not "prompt"')
    if token_ids is not None:
        return _read_token_ids(token_ids, "prompt_token_ids"), None, None
    if messages is not None:
        return None, None, _read_messages(messages)
    if isinstance(prompt, list):
        return _read_token_ids(prompt, "prompt"), None, None
    if prompt is None:
        raise BadRecordError('no prompt; give "prompt", "prompt_token_ids" or "messages"')
    if not isinstance(prompt, str):
        raise BadRecordError(f'"prompt" is {show(prompt)}; give a text or a list of token ids')
    if not prompt:
        raise BadRecordError('"prompt" is empty; give at least one character')
    utf8(prompt, '"prompt"')
    return None, prompt, None


def _read_token_ids(value: object, key: str) -> list[int]:
    if not isinstance(value, list):
        raise BadRecordError(f'"{key}" is {show(value)}; give a list of token ids')
    if not value:
        raise BadRecordError(f'"{key}" is empty; give at least one token id')
    if set(map(type, value)) != {int} or min(value) < 0 or max(value) > LARGEST_TOKEN_ID:
        _refuse_token_id(value, key)
    return value


def _refuse_token_id(value: list[Any], key: str) -> NoReturn:
    if len(value) > 1 and all(isinstance(item, list | str) for item in value):
        raise BadRecordError(f'"{key}" holds {len(value)} prompts; write one line for each')
    for place, item in enumerate(value):
        if type(item) is not int or not 0 <= item <= LARGEST_TOKEN_ID:
            raise BadRecordError(
                f'"{key}"[{place}] is {show(item)}; '
                f"token ids are whole numbers from 0 to {LARGEST_TOKEN_ID}"
            )
    raise AssertionError("a list of good token ids was refused")


def _read_messages(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise BadRecordError(f'"messages" is {show(value)}; give a list of messages')
    if not value:
        raise BadRecordError('"messages" is empty; give at least one message')
    return [_read_message(message, place) for place, message in enumerate(value)]


def _read_message(message: object, place: int) -> dict[str, Any]:
    """A message whose content is one text, or None next to tool calls."""
    where = f'"messages"[{place}]'
    if not isinstance(message, dict):
        raise BadRecordError(
            f'{where} is {show(message)}; write {{"role": "user", "content": "..."}}'
        )
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise BadRecordError(f'{where}: "role" is {show(role)}; give "user", "system", ...')
    utf8(role, f'{where}: "role"')
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_read_part(part, where) for part in content)
    elif content is None and message.get("tool_calls") is None:
        raise BadRecordError(f'{where}: no "content"; give a text')
    elif content is not None and not isinstance(content, str):
        raise BadRecordError(f'{where}: "content" is {show(content)}; give a text')
    if content is not None:
        utf8(content, f'{where}: "content"')
    return {**message, "content": content}


def _read_part(part: object, where: str) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, dict) else part
        raise BadRecordError(f"{where}: a content part is {show(kind)}; only text can be planned")
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise BadRecordError(f"{name} is not JSON; give a number or leave the field out")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
