"""What the body of a request asks to be read: token ids, texts, or the messages of a conversation.

Each endpoint names its prompt otherwise. Several texts in one request (of embeddings, scores and
rankings) are read as one prompt, one text after the other.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from blendplan.printable import show
from blendplan.requests.bad import BadRecordError, utf8
from blendplan.requests.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RERANK,
    RESPONSES,
    SCORE,
)
from blendplan.requests.messages import Message, content_text, media_parts, read_messages
from blendplan.requests.responses import response_messages

LARGEST_TOKEN_ID = 2**31 - 1
_SCORED = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


class Prompt(NamedTuple):
    """What a request is made of: exactly one of these holds something."""

    token_ids: list[int] | None = None
    texts: tuple[str, ...] = ()
    messages: list[Message] | None = None


def read_prompt(body: Mapping[str, Any], endpoint: str | None) -> tuple[Prompt, str]:
    """The prompt of a body, and the endpoint that takes it.

    Args:
        body: of the request.
        endpoint: that the line names, None where it names none.

    Raises:
        BadRecordError: there is no prompt, or none that can be planned.
    """
    if endpoint == RESPONSES:
        return Prompt(messages=response_messages(body)), RESPONSES
    if endpoint == EMBEDDINGS:
        return _embedded(body), EMBEDDINGS
    if endpoint == SCORE:
        return _scored(body), SCORE
    if endpoint == RERANK:
        pairs = _pairs(_texts(body, "query"), _texts(body, "documents"))
        return Prompt(texts=pairs), RERANK
    return _generated(body, endpoint)


def _generated(body: Mapping[str, Any], endpoint: str | None) -> tuple[Prompt, str]:
    token_ids, prompt, messages = (
        body.get("prompt_token_ids"),
        body.get("prompt"),
        body.get("messages"),
    )
    if prompt is not None and messages is not None:
        raise BadRecordError('both "prompt" and "messages"; give one of them')
    if endpoint == CHAT and messages is None:
        raise BadRecordError('"url" is /v1/chat/completions but "body" has no "messages"')
    if endpoint == COMPLETIONS and messages is not None:
        raise BadRecordError('"url" is /v1/completions but "body" has "messages", not "prompt"')
    found = endpoint or (COMPLETIONS if messages is None else CHAT)
    if token_ids is not None:
        return Prompt(read_token_ids(token_ids, "prompt_token_ids")), found
    if messages is not None:
        return Prompt(messages=read_messages(messages)), found
    if prompt is None:
        _refuse_missing(body)
    return _read_text_or_ids(prompt, "prompt"), found


def _refuse_missing(body: Mapping[str, Any]) -> NoReturn:
    if body.get("input") is not None:
        raise BadRecordError(
            '"input" without a "url" that says what it is for; write a batch line with '
            '"url": "/v1/embeddings" or "/v1/responses"'
        )
    others = [name for name, value in body.items() if isinstance(value, str | list)]
    names = ", ".join(show(name) for name in sorted(others) if name not in ("custom_id", "id"))
    fields = f" (its fields are {names[:80]})" if names else ""
    column = "; --prompt-column NAME says which other field is one" if names else ""
    raise BadRecordError(
        f'no prompt; give "prompt", "prompt_token_ids" or "messages"{fields}{column}'
    )


def _read_text_or_ids(value: object, key: str) -> Prompt:
    """One prompt as a text or as token ids, also in a list of one."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, list):
        return Prompt(read_token_ids(value, key))
    if not isinstance(value, str):
        raise BadRecordError(f'"{key}" is {show(value)}; give a text or a list of token ids')
    if not value:
        raise BadRecordError(f'"{key}" is empty; give at least one character')
    utf8(value, f'"{key}"')
    return Prompt(texts=(value,))


def read_token_ids(value: object, key: str) -> list[int]:
    """Check a list of token ids.

    Raises:
        BadRecordError: it is none.
    """
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


def _embedded(body: Mapping[str, Any]) -> Prompt:
    """The input of an embedding: a conversation, or one or several texts or lists of token ids."""
    value = body.get("input")
    if value is None and body.get("messages") is not None:
        return Prompt(messages=read_messages(body["messages"]))
    if value is None:
        raise BadRecordError('"url" is /v1/embeddings but "body" has no "input"')
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return Prompt(messages=read_messages(value))
    several = isinstance(value, list) and len(value) > 1
    if several and all(isinstance(item, str) for item in value):
        return Prompt(texts=_texts(body, "input"))
    if several and all(isinstance(item, list) for item in value):
        lists = [read_token_ids(item, f'input"[{place}]') for place, item in enumerate(value)]
        return Prompt([token for tokens in lists for token in tokens])
    return _read_text_or_ids(value, "input")


def _scored(body: Mapping[str, Any]) -> Prompt:
    for first, second in _SCORED:
        if body.get(first) is not None and body.get(second) is not None:
            return Prompt(texts=_pairs(_texts(body, first), _texts(body, second)))
    raise BadRecordError('"url" is /v1/score but "body" has no "text_1" and "text_2"')


def _texts(body: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """One or several texts, each also as the content of a message."""
    value = body.get(key)
    items = value if isinstance(value, list) else [value]
    return tuple(_text(item, f'"{key}"[{place}]') for place, item in enumerate(items))


def _text(item: object, where: str) -> str:
    if isinstance(item, dict) and isinstance(item.get("content"), list):
        (message,) = read_messages([{"role": "user", "content": item["content"]}])
        if not any(media_parts([message])):
            item = content_text(message["content"])
    if not isinstance(item, str):
        raise BadRecordError(f"{where} is {show(item)}; only texts can be planned here")
    utf8(item, where)
    return item


def _pairs(queries: tuple[str, ...], documents: tuple[str, ...]) -> tuple[str, ...]:
    """All texts of the pairs that are scored: one query for all documents, or one for each."""
    if len(queries) == 1:
        queries = queries * len(documents)
    if len(queries) != len(documents) or not documents:
        raise BadRecordError(
            f"{len(queries)} queries for {len(documents)} documents; give one query, or one for "
            "each document"
        )
    return tuple(text for pair in zip(queries, documents, strict=True) for text in pair)
