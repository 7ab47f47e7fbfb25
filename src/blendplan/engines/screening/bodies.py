"""Bodies of requests as an engine's server gets them, and their shapes.

Of a million requests most differ in nothing but their texts. So what a server would do is asked
once for each shape: a body whose texts are a placeholder.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from blendplan.requests.endpoints import REPEATS, SOURCE_COLUMNS

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"

# Fields of a plain line that are blendplan's own.
_OUR_NAMES = "id custom_id method url body output_tokens prompt_token_ids"
_OUR_FIELDS = frozenset((*_OUR_NAMES.split(), SOURCE_COLUMNS, REPEATS))
_TEXT = "x"
_TOKEN_ID = 5
# Free texts and numbers that servers take whatever they say.
_FREE_TEXTS = ("user", "request_id", "rid", "session_id", "safety_identifier", "prompt_cache_key")
_INT64 = 1 << 63
_ENCODE = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Body(NamedTuple):
    """One request as a server gets it.

    Attributes:
        url: the endpoint.
        fields: the JSON object.
    """

    url: str
    fields: dict[str, Any]


def body_of(line: Mapping[str, Any], *, has_token_ids: bool) -> Body:
    """What a server gets for a line of a request file.

    Args:
        line: a batch line, with the request under ``body``, or a plain one.
        has_token_ids: whether the prompt is a list of token ids that stands outside the line.
    """
    inner = line.get("body")
    if isinstance(inner, dict):
        fields = dict(inner)
        fields.pop("output_tokens", None)
    else:
        fields = {name: value for name, value in line.items() if name not in _OUR_FIELDS}
    url = _path(line.get("url"))
    token_ids = fields.pop("prompt_token_ids", None) or line.get("prompt_token_ids")
    if "messages" not in fields and "prompt" not in fields:
        if token_ids is not None:
            fields["prompt"] = token_ids
        elif has_token_ids and "input" not in fields:
            fields["prompt"] = [_TOKEN_ID]
    return Body(url or (CHAT if "messages" in fields else COMPLETION), fields)


def _path(url: object) -> str:
    """The endpoint in a url of any server."""
    text = url if isinstance(url, str) else ""
    for known in (CHAT, COMPLETION):
        if text.partition("?")[0].endswith(known.removeprefix("/v1")):
            return known
    place = text.find("/v1/")
    return text[place:] if place >= 0 else text


def shape(body: Body) -> tuple[str, dict[str, Any]]:
    """A body with placeholders for its texts, and that as text, to tell shapes apart."""
    fields = dict(body.fields)
    if "messages" in fields:
        fields["messages"] = _messages(fields["messages"])
    if "prompt" in fields:
        fields["prompt"] = _prompt(fields["prompt"])
    if "input" in fields:
        fields["input"] = _prompt(fields["input"])
    for name in _FREE_TEXTS:
        if isinstance(fields.get(name), str) and fields[name]:
            fields[name] = _TEXT
    seed = fields.get("seed")
    if type(seed) is int and -_INT64 <= seed < _INT64:
        fields["seed"] = 0
    return body.url + _ENCODE(fields), fields


def _prompt(prompt: object) -> object:
    if isinstance(prompt, str):
        return prompt and _TEXT
    if isinstance(prompt, list):
        if set(map(type, prompt)) == {int}:  # what a model has no such token for is found by number
            return [max(prompt)] if min(prompt) >= 0 else [min(prompt)]
        return [_prompt(item) for item in prompt]
    return prompt


def _messages(messages: object) -> object:
    if not isinstance(messages, list):
        return messages
    return [_message(message) for message in messages]


def _message(message: object) -> object:
    if not isinstance(message, dict):
        return message and _TEXT if isinstance(message, str) else message
    content = message.get("content")
    if len(message) == 2 and type(content) is str:  # role and text, as nearly all are
        return {"role": message.get("role"), "content": content and _TEXT}
    return {name: _part(name, value) for name, value in message.items()}


def _part(name: str, value: object) -> object:
    """What is in a message, texts replaced, arguments of tool calls by whether they are JSON."""
    if name in ("role", "type", "name", "id", "tool_call_id"):
        return value if name in ("role", "type") or not isinstance(value, str) else value and _TEXT
    if name == "arguments" and isinstance(value, str):
        return _arguments(value)
    if isinstance(value, str):
        return value and _TEXT
    if isinstance(value, dict):
        return {key: _part(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_part(name, item) for item in value]
    return value


def _arguments(text: str) -> str:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return "{"
    return "{}" if isinstance(value, dict) else "1"
