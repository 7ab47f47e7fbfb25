"""The messages of a conversation: checked, and as the server of an engine gives them to templates.

A message's content is a text, a list of parts, or null. Parts are texts, media, or references to
tools. What is refused here is refused by the servers of vLLM and SGLang too.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from blendplan.printable import show
from blendplan.requests.bad import BadRecordError, utf8

Message = dict[str, Any]

# Keys of content parts that hold media, by what is in them. A part may leave out its type.
MEDIA_KINDS = {
    "image_url": "image",
    "input_image": "image",
    "image_pil": "image",
    "image_embeds": "image",
    "audio_url": "audio",
    "input_audio": "audio",
    "audio_embeds": "audio",
    "video_url": "video",
    "video_embeds": "video",
}
_TEXT_TYPES = frozenset(["text", "input_text", "output_text", "refusal", "thinking"])
_TEXT_FIELDS = {"refusal": "refusal", "thinking": "thinking"}
_PART_FIELDS = frozenset(
    [*MEDIA_KINDS, *_TEXT_TYPES, "type", "uuid", "detail", "name", "tool_reference", "closed"]
)
# A line that a coding tool puts before its system prompts, other in every request; servers leave
# it out, since no two prompts would share anything.
_BILLING = "x-anthropic-billing-header"


def read_messages(value: object) -> list[Message]:
    """Check messages; they are given back as they are.

    Raises:
        BadRecordError: they are none.
    """
    if not isinstance(value, list):
        raise BadRecordError(f'"messages" is {show(value)}; give a list of messages')
    if not value:
        raise BadRecordError('"messages" is empty; give at least one message')
    for place, message in enumerate(value):
        _check(message, f'"messages"[{place}]')
    return value


def _check(message: object, where: str) -> None:
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
        for part in content:
            _check_part(part, where)
    elif isinstance(content, str):
        utf8(content, f'{where}: "content"')
    elif content is not None:
        raise BadRecordError(f'{where}: "content" is {show(content)}; give a text')
    calls = message.get("tool_calls")
    if role == "assistant" and calls is not None:
        _check_calls(calls, where)


def _check_part(part: object, where: str) -> None:
    kind = part_kind(part)
    if kind is None or isinstance(part, str):
        shown = show(part.get("type") if isinstance(part, dict) else part)
        raise BadRecordError(
            f"{where}: a content part is {shown}; "
            f"give text, {', '.join(sorted(MEDIA_KINDS))} or tool_reference"
        )
    if kind == "text":
        text = part_text(part)
        if text is None:
            return
        if not isinstance(text, str):
            raise BadRecordError(f"{where}: the text of a content part is {show(text)}")
        utf8(text, f"{where}: a content part")


def _check_calls(calls: object, where: str) -> None:
    if not isinstance(calls, list):
        raise BadRecordError(f'{where}: "tool_calls" is {show(calls)}; give a list of calls')
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type", "function") != "function":
            raise BadRecordError(
                f'{where}: "tool_calls" holds {show(call)} that calls no function; write '
                '{"id": "...", "type": "function", "function": {"name": "...", "arguments": "{}"}}'
            )


def part_kind(part: Any) -> str | None:
    """``text``, ``image``, ``audio``, ``video`` or ``tool_reference``; None of another part."""
    if not isinstance(part, dict):
        return "text" if isinstance(part, str) else None
    stated = part.get("type")
    if isinstance(stated, str) and (stated in MEDIA_KINDS or stated in _TEXT_TYPES):
        return MEDIA_KINDS.get(stated, "text")
    if stated == "tool_reference":
        return "tool_reference"
    if stated is None or part.get("uuid") is not None:
        return next((kind for key, kind in MEDIA_KINDS.items() if key in part), None)
    return None


def part_text(part: Any) -> Any:
    """The text of a text part; None where it holds none, which servers pass over."""
    if isinstance(part, str):
        return part
    return part.get(_TEXT_FIELDS.get(part["type"], "text"))


def content_text(content: object) -> str:
    """The texts of a content, parts on a line each."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (_text_or_name(part) for part in content if part_kind(part) not in _MEDIA)
    return "\n".join(text for text in texts if text is not None)


_MEDIA = frozenset(MEDIA_KINDS.values())


def _text_or_name(part: Any) -> str | None:
    text = part.get("name") if part_kind(part) == "tool_reference" else part_text(part)
    return text if isinstance(text, str) else None


def media_parts(messages: list[Message]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The media of a conversation in order: where each is, its kind, and its part."""
    for place, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                kind = part_kind(part)
                if kind in _MEDIA:
                    assert kind is not None
                    yield f'"messages"[{place}]', kind, part


def conversation(
    messages: list[Message], *, as_parts: bool, placeholders: Mapping[str, str]
) -> list[Message]:
    """Messages as the server gives them to a chat template.

    Args:
        messages: checked ones.
        as_parts: whether contents are lists of parts, as a template that iterates over them wants
            them, or texts.
        placeholders: the text that stands for media of each kind where contents are texts.
    """
    return [_turn(message, as_parts, placeholders) for message in messages]


def _turn(message: Message, as_parts: bool, placeholders: Mapping[str, str]) -> Message:
    role, content = message["role"], message.get("content")
    parts = [content] if isinstance(content, str) else content or []
    if role == "system":
        parts = [kept for part in parts if (kept := _without_billing(part)) is not None]
    turn: Message = {"role": role}
    if as_parts:
        turn["content"] = [kept for part in parts if (kept := _part(part)) is not None]
    elif isinstance(content, str):
        turn["content"] = parts[0] if parts else ""
    else:
        turn["content"] = _joined(parts, placeholders)
    if role == "assistant":
        _add_assistant(turn, message)
    elif role == "tool":
        if "tool_call_id" in message:
            turn["tool_call_id"] = message["tool_call_id"]
        if as_parts and all(part["type"] == "text" for part in turn["content"]):
            turn["content"] = "\n".join(part["text"] for part in turn["content"])
    elif role == "developer":
        turn["tools"] = message.get("tools")
    for key in ("name", "task"):
        if isinstance(message.get(key), str):
            turn[key] = message[key]
    return turn


def _part(part: Any) -> dict[str, Any] | None:
    """A part as templates know it: what kind of media it is, not what is in it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part_kind(part)
    if kind == "tool_reference":
        return {"type": "tool_reference", "name": part.get("name")}
    others = {key: value for key, value in part.items() if key not in _PART_FIELDS}
    if kind != "text":
        return {"type": kind, **others}
    text = part_text(part)
    return None if text is None else {"type": "text", "text": text, **others}


def _joined(parts: list[Any], placeholders: Mapping[str, str]) -> str:
    """Parts as one text, a line each without empty ones; media stand in front of it."""
    text = content_text([part for part in parts if part_kind(part) != "text" or part_text(part)])
    kinds = [part_kind(part) for part in parts]
    stand_ins = [placeholders[kind] for kind in kinds if kind is not None and kind in placeholders]
    for written in set(stand_ins):
        for _ in range(min(text.count(written), stand_ins.count(written))):
            stand_ins.remove(written)  # the user put it where it belongs
    return "\n".join([*stand_ins, text] if text else stand_ins)


def _without_billing(part: Any) -> Any:
    text = part_text(part) if part_kind(part) == "text" else None
    if not isinstance(text, str) or not text.startswith(_BILLING):
        return part
    rest = text.partition("\n")[2]
    if not rest:
        return None
    return rest if isinstance(part, str) else {**part, "text": rest}


def _add_assistant(turn: Message, message: Message) -> None:
    calls = message.get("tool_calls")
    if calls:
        turn["tool_calls"] = [_call(call) for call in calls]
    reasoning = message.get("reasoning")
    if reasoning is None:
        reasoning = message.get("reasoning_content")
    if reasoning is not None:
        turn["reasoning"] = turn["reasoning_content"] = reasoning


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call whose arguments are an object, as templates iterate over them.

    Its fields come in the order in which servers print them.
    """
    arguments = call["function"].get("arguments")
    if isinstance(arguments, str) and arguments:
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        arguments = {}
    called = {**call["function"], "arguments": arguments}
    return _first(("id", "function", "type"), {**call, "function": _first(_CALLED, called)})


_CALLED = ("arguments", "name")


def _first(names: tuple[str, ...], fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields, those named in front."""
    return {name: fields[name] for name in names if name in fields} | fields


def with_system_for_developer(turns: list[Message]) -> list[Message]:
    """The turns of a conversation for a template that knows no role ``developer``.

    Its messages become system messages, and where one of those is not the first turn, all are one.
    """
    changed = []
    for turn in turns:
        if turn["role"] == "developer":
            turn = {key: value for key, value in turn.items() if key != "tools"}
            turn["role"] = "system"
        changed.append(turn)
    places = [place for place, turn in enumerate(changed) if turn["role"] == "system"]
    if places in ([], [0]):
        return changed
    texts = [content_text(changed[place].get("content")) for place in places]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(turn for turn in changed if turn["role"] != "system")]
