"""What SGLang's server refuses beside fields of the wrong kind: one field against another.

Written after SGLang 0.5.23: the request models (``entrypoints/openai/protocol.py``), the checks of
`OpenAIServingChat` and `OpenAIServingCompletion`, `SamplingParams.verify` and
`TokenizerManager._validate_one_request`. Messages are ours.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from blendplan.engines.screening.bodies import CHAT, COMPLETION, Body
from blendplan.engines.screening.fields import TAKEN, Verdict, as_flag, as_integer, as_number
from blendplan.engines.screening.fields import refused_field as refused
from blendplan.engines.screening.server import Server
from blendplan.printable import show

DEFAULT_COMPLETION_TOKENS = 16
_GENERIC_ROLES = ("system", "assistant", "tool", "function", "developer", "latest_reminder", "root")
_PARTS = (
    *("text", "thinking", "reasoning", "image_url", "video_url", "audio_url", "input_audio"),
    "tool_reference",
)
_NOT_TEXT = ("image_url", "video_url", "audio_url", "input_audio")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max")
_MOST_EFFORT = 0.99
_GREEDY_BELOW = 1e-6
_GRAMMARS = ("regex", "ebnf")


def judge_fields(body: Body, server: Server) -> Verdict:
    """The first rule between fields that a request breaks; each by itself is of the right kind."""
    if body.url not in (CHAT, COMPLETION):
        return TAKEN
    return next(_fields(body, server), TAKEN)


def judge_server(body: Body, server: Server) -> Verdict:
    """The first thing that the server was not started for, though the request is a good one."""
    if body.url not in (CHAT, COMPLETION):
        return TAKEN
    return next(_server(body, server), TAKEN)


def output_cap(body: Body) -> int | None:
    """Most tokens that a request may generate, before the context cuts it; None for no cap."""
    fields = body.fields
    if body.url == CHAT:  # a 0 is as if it were not there
        named = as_integer(fields.get("max_completion_tokens"))
        return named or as_integer(fields.get("max_tokens")) or None
    if body.url != COMPLETION:
        return None
    stated = as_integer(fields.get("max_tokens"))
    return DEFAULT_COMPLETION_TOKENS if stated is None else stated


def _fields(body: Body, server: Server) -> Iterator[Verdict]:
    fields, cap = body.fields, output_cap(body)
    if body.url == CHAT:
        yield from _messages(fields.get("messages"))
        yield from _tools(fields)
        yield from _effort(fields.get("reasoning_effort"))
    else:
        yield from _prompt(fields.get("prompt"), server)
    if cap is not None and cap > server.max_model_len:
        yield refused(
            "max_tokens",
            f'"max_tokens" is {cap:,}, more than the context of {server.max_model_len:,}',
        )
    least = as_integer(fields.get("min_tokens")) or 0
    if cap is not None and least > cap:
        yield refused("min_tokens", f'"min_tokens" is {least}, "max_tokens" {cap}')
    temperature, top_k = as_number(fields.get("temperature")), as_integer(fields.get("top_k"))
    greedy = temperature is not None and temperature < _GREEDY_BELOW  # which sets top_k itself
    if top_k is not None and top_k < 1 and top_k != -1 and not greedy:
        yield refused("top_k", f'"top_k" is {top_k}; give -1 or leave it out')
    if temperature is not None and temperature == float("inf"):
        yield refused("temperature", '"temperature" is no finite number')
    bias = fields.get("logit_bias")
    for key in bias if isinstance(bias, dict) else ():
        if not (key.lstrip("-").isdecimal() and 0 <= int(key) < server.vocab):
            yield refused(
                "logit_bias", f'"logit_bias" has {show(key)}; ids go to {server.vocab - 1}'
            )
    yield from _structure(fields)


def _server(body: Body, server: Server) -> Iterator[Verdict]:
    """What depends on the model, and on the arguments that the server is started with."""
    fields = body.fields
    if as_flag(fields.get("stream")):
        yield refused("stream", '"stream" cannot be true in a batch; leave it out')
    kwargs = fields.get("chat_template_kwargs")
    if (
        body.url == CHAT
        and isinstance(kwargs, dict)
        and "chat_template" in kwargs
        and not server.argument("trust_request_chat_template")
    ):
        yield refused(
            "chat_template_kwargs",
            'a "chat_template" in a request is refused unless the server is started with '
            "trust_request_chat_template",
        )
    if fields.get("return_hidden_states") and not server.argument(
        "enable_return_hidden_states", "return_hidden_states_mode"
    ):
        yield refused(
            "return_hidden_states", '"return_hidden_states" needs return_hidden_states_mode=full'
        )
    if fields.get("custom_logit_processor") and not server.argument(
        "enable_custom_logit_processor"
    ):
        yield refused(
            "custom_logit_processor",
            '"custom_logit_processor" needs enable_custom_logit_processor=true',
        )
    if server.arguments.get("grammar_backend") == "none" and _structured(body):
        yield refused(
            "response_format", "structured outputs and forced tools need a grammar_backend"
        )
    adapter = fields.get("lora_path")
    name = fields.get("model")
    if isinstance(name, str) and name != server.argument("served_model_name"):
        adapter = name.partition(":")[2] or adapter
    if adapter and not server.argument("lora_paths", "enable_lora"):
        yield refused("lora_path", f"the adapter {show(adapter)} needs lora_paths")
    if body.url == CHAT and server.multimodal is False:
        yield from _media(fields.get("messages"))


def _structured(body: Body) -> bool:
    """Whether the answer is held to a grammar."""
    fields = body.fields
    form = fields.get("response_format")
    asked = [fields.get(name) for name in _GRAMMARS]
    if body.url == COMPLETION:
        asked.append(fields.get("json_schema"))
    elif fields.get("tools"):
        asked.append(fields.get("tool_choice") not in (None, "none", "auto"))
    return any(asked) or (isinstance(form, dict) and form.get("type") != "text")


def _media(messages: object) -> Iterator[Verdict]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in _NOT_TEXT:
                yield refused("messages", f"the model takes no {part['type']}")


def _effort(effort: object) -> Iterator[Verdict]:
    if effort is None or effort in _EFFORTS:
        return
    number = None if isinstance(effort, bool) else as_number(effort)
    if number is None or not 0 <= number <= _MOST_EFFORT:
        yield refused("reasoning_effort", f'"reasoning_effort" is {show(effort)}')


def _structure(fields: Mapping[str, Any]) -> Iterator[Verdict]:
    form = fields.get("response_format")
    kind = None
    if form is not None:
        kind = form.get("type") if isinstance(form, dict) else None
        if kind not in ("text", "json_object", "json_schema", "structural_tag"):
            yield refused("response_format", f'"response_format" of type {show(kind)}')
            return
        if kind == "json_schema":
            inner = form.get("json_schema")
            schema = inner.get("schema") if isinstance(inner, dict) else form.get("schema")
            if schema is None:
                yield refused(
                    "response_format", '"response_format" has no schema: give json_schema.schema'
                )
    asked = [name for name in _GRAMMARS if fields.get(name)]
    asked += ["response_format"] * (kind not in (None, "text"))
    asked += ["json_schema"] * bool("prompt" in fields and fields.get("json_schema"))
    if len(asked) > 1:
        yield refused(asked[0], f"{' and '.join(asked)} ask for two structures; give one")


def _tools(fields: Mapping[str, Any]) -> Iterator[Verdict]:
    tools = fields.get("tools")
    if tools is not None and not isinstance(tools, list):
        yield refused("tools", f'"tools" is {show(tools)}; give a list')
        return
    for tool in tools or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield refused("tools", "a tool has no function with a name")
            return
    choice = fields.get("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return
    if isinstance(choice, str) and choice != "required":
        yield refused("tool_choice", f'"tool_choice" is {show(choice)}')
        return
    if not tools:
        yield refused("tool_choice", f'"tool_choice" is {show(choice)} without "tools"')
        return
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in [tool["function"]["name"] for tool in tools]:
            yield refused("tool_choice", f'"tool_choice" names {show(name)}, which is no tool')
    elif choice != "required":
        yield refused("tool_choice", f'"tool_choice" is {show(choice)}')
    form = fields.get("response_format")
    structured = isinstance(form, dict) and form.get("type") != "text"
    if structured or any(fields.get(name) for name in _GRAMMARS):
        yield refused("tool_choice", '"tool_choice" and a structure exclude each other')


def _prompt(prompt: object, server: Server) -> Iterator[Verdict]:
    if not prompt:
        yield refused("prompt", '"prompt" is empty')
    elif isinstance(prompt, list):
        if all(item in ("", []) for item in prompt):
            yield refused("prompt", '"prompt" is empty')
        for item in prompt:
            if isinstance(item, list):
                yield from _prompt(item, server)
            elif not isinstance(item, str) and as_integer(item) is None:
                yield refused("prompt", f'"prompt" holds {show(item)}; give texts or token ids')
            elif not isinstance(item, str) and not 0 <= (as_integer(item) or 0) < server.vocab:
                yield refused("prompt", f'"prompt" has token {item}; ids go to {server.vocab - 1}')
    elif not isinstance(prompt, str):
        yield refused("prompt", f'"prompt" is {show(prompt)}; give a text or token ids')


def _messages(messages: object) -> Iterator[Verdict]:
    if not isinstance(messages, list):
        yield refused("messages", f'"messages" is {show(messages)}; give a list')
        return
    if not messages:
        yield refused("messages", '"messages" is empty')
    for place, message in enumerate(messages):
        where = f'"messages"[{place}]'
        if not isinstance(message, dict):
            yield refused("messages", f"{where} is {show(message)}; give role and content")
            return
        role, content = message.get("role"), message.get("content")
        if role != "user" and not (isinstance(role, str) and role.lower() in _GENERIC_ROLES):
            yield refused("messages", f"{where}: the role is {show(role)}")
            return
        if not isinstance(content, str | list) and not (content is None and role != "user"):
            yield refused("messages", f"{where}: content is {show(content)}; give a text")
            return
        if role == "assistant":
            yield from _calls(message.get("tool_calls"), where)
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in _PARTS:
                yield refused("messages", f"{where}: a part of content is of type {show(kind)}")


def _calls(calls: object, where: str) -> Iterator[Verdict]:
    """Arguments of tool calls in the history, which are a JSON object, or the text of one."""
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        text = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(text, str):
            continue
        try:
            good = isinstance(json.loads(text or "{}"), dict)
        except (ValueError, RecursionError):
            good = False
        if not good:
            yield refused("messages", f"{where}: arguments of a tool call are no JSON object")
