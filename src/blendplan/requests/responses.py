"""The conversation of a request to ``/v1/responses``, as the server makes messages of its input."""

from collections.abc import Mapping
from typing import Any

from blendplan.printable import show
from blendplan.requests.bad import BadRecordError
from blendplan.requests.messages import Message, read_messages

_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def response_messages(body: Mapping[str, Any]) -> list[Message]:
    """Messages of the body of such a request.

    Raises:
        BadRecordError: it has no input, or one that no server takes.
    """
    given, instructions = body.get("input"), body.get("instructions")
    messages: list[Message] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise BadRecordError(f'"instructions" is {show(instructions)}; give a text')
        if instructions:
            messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    elif isinstance(given, list):
        for place, item in enumerate(given):
            _add(messages, item, f'"input"[{place}]')
    else:
        raise BadRecordError(
            f'"url" is /v1/responses but "input" is {show(given)}; give a text or a list of items'
        )
    return read_messages(messages)


def _add(messages: list[Message], item: object, where: str) -> None:
    """Add an item, which may belong to the assistant's turn before it."""
    if not isinstance(item, dict):
        raise BadRecordError(f"{where} is {show(item)}; give a message or another item")
    kind, role = item.get("type", "message"), item.get("role")
    turn = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if kind in ("function_call", "custom_tool_call"):
        called = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": called}
        if turn is None:
            messages.append({"role": "assistant", "tool_calls": [call]})
        else:
            turn.setdefault("tool_calls", []).append(call)
    elif kind == "reasoning":
        texts = item.get("content") or item.get("summary") or []
        first = texts[0] if isinstance(texts, list) and texts else {}
        text = first.get("text", "") if isinstance(first, dict) else ""
        _join(messages, turn, "reasoning", text)
    elif kind in _OUTPUTS:
        output, name = item.get("output"), item.get("call_id")
        messages.append({"role": "tool", "content": output, "tool_call_id": name})
    elif role == "assistant":
        content = item.get("content")
        if isinstance(content, list) and content and isinstance(content[0], dict):
            content = content[0].get("text")
        _join(messages, turn, "content", content)
    elif isinstance(role, str):
        messages.append({key: value for key, value in item.items() if key != "type"})
    else:
        raise BadRecordError(f"{where}: no item of type {show(kind)} can be planned")


def _join(messages: list[Message], turn: Message | None, key: str, value: Any) -> None:
    if turn is not None and turn.get(key) is None:
        turn[key] = value
    else:
        messages.append({"role": "assistant", key: value})


def is_open(body: Mapping[str, Any]) -> bool:
    """Whether the input ends with a turn of the assistant that is to be continued."""
    given = body.get("input")
    last = given[-1] if isinstance(given, list) and given else None
    return (
        isinstance(last, dict)
        and last.get("type", "message") in ("message", "reasoning")
        and last.get("status") in ("in_progress", "incomplete")
    )
