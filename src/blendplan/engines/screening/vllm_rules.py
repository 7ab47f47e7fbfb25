"""What vLLM's server refuses beside fields of the wrong kind: one field against another.

Written after vLLM 0.32: `ChatCompletionRequest` and `CompletionRequest` (their validators),
`SamplingParams` (`_verify_args`, `verify`), `OnlineRenderer.render_chat`, `TokenizeParams` and
`get_max_tokens`. Messages are ours; they name the field and what to do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from blendplan.engines.screening.bodies import CHAT, COMPLETION, Body
from blendplan.engines.screening.fields import TAKEN, Verdict, as_flag, as_integer, as_number
from blendplan.engines.screening.fields import refused_field as refused
from blendplan.engines.screening.server import Server
from blendplan.printable import show

DEFAULT_COMPLETION_TOKENS = 16
_GREEDY_BELOW = 1e-5
_MOST_LOGPROBS = 20
_MOST_LOGPROB_TOKEN_IDS = 128
_ONE_OF = ("json", "regex", "choice")
_CONSTRAINTS = (*_ONE_OF, "grammar", "json_object", "structural_tag")
_FORMATS = ("text", "json_object", "json_schema", "structural_tag")
_NOT_TEXT = (
    *("image_url", "image_embeds", "image_pil", "input_audio", "audio_url", "audio_embeds"),
    "video_url",
)
_PARTS = ("text", "input_text", "output_text", "refusal", "thinking", "tool_reference", *_NOT_TEXT)


def judge_fields(body: Body, server: Server) -> Verdict:
    """The first rule between fields that a request breaks; each by itself is of the right kind."""
    if body.url not in (CHAT, COMPLETION):
        return TAKEN
    rules = _chat if body.url == CHAT else _completion
    return next(rules(body.fields, server), TAKEN)


def judge_server(body: Body, server: Server) -> Verdict:
    """The first thing that the server was not started for, though the request is a good one."""
    if body.url not in (CHAT, COMPLETION):
        return TAKEN
    return next(_server(body, server), TAKEN)


def output_cap(body: Body) -> int | None:
    """Most tokens that a request may generate, before the context cuts it; None for no cap."""
    fields = body.fields
    if body.url == CHAT:
        named = as_integer(fields.get("max_completion_tokens"))
        return as_integer(fields.get("max_tokens")) if named is None else named
    if body.url != COMPLETION:
        return None
    stated = as_integer(fields.get("max_tokens"))
    return DEFAULT_COMPLETION_TOKENS if stated is None else stated


def _chat(fields: Mapping[str, Any], server: Server) -> Iterator[Verdict]:
    top = as_integer(fields.get("top_logprobs")) or 0
    logprobs = bool(as_flag(fields.get("logprobs")))
    if top and not logprobs:
        yield refused("top_logprobs", '"top_logprobs" needs "logprobs": true')
    yield from _logprobs("top_logprobs", top, server)
    if fields.get("logprob_token_ids") and not logprobs:
        yield refused("logprob_token_ids", '"logprob_token_ids" needs "logprobs": true')
    yield from _tools(fields)
    yield from _sampling(fields, server, output_cap(Body(CHAT, dict(fields))))


def _completion(fields: Mapping[str, Any], server: Server) -> Iterator[Verdict]:
    logprobs = as_integer(fields.get("logprobs"))
    yield from _logprobs("logprobs", logprobs or 0, server)
    if fields.get("logprob_token_ids") and logprobs is None:
        yield refused("logprob_token_ids", '"logprob_token_ids" needs "logprobs"')
    cap = output_cap(Body(COMPLETION, dict(fields)))
    echo = as_flag(fields.get("echo"))
    yield from _sampling(fields, server, 1 if echo and cap == 0 else cap)


def _sampling(fields: Mapping[str, Any], server: Server, cap: int | None) -> Iterator[Verdict]:
    """What both endpoints check, with the cap on the output in force."""
    if fields.get("stream_options") and not as_flag(fields.get("stream")):
        yield refused("stream_options", '"stream_options" needs "stream": true; leave it out')
    if cap is not None:
        if cap < 1:
            yield refused("max_tokens", f'"max_tokens" is {cap}; give 1 or more, or leave it out')
        if cap > server.max_model_len:
            yield refused(
                "max_tokens",
                f'"max_tokens" is {cap:,}, more than the context of {server.max_model_len:,}',
            )
        least = as_integer(fields.get("min_tokens")) or 0
        if least > cap:
            yield refused("min_tokens", f'"min_tokens" is {least}, "max_tokens" {cap}')
    prompt_logprobs = as_integer(fields.get("prompt_logprobs")) or 0
    yield from _logprobs("prompt_logprobs", prompt_logprobs, server)
    temperature = as_number(fields.get("temperature"))
    n = as_integer(fields.get("n")) or 1
    greedy = temperature is not None and temperature < _GREEDY_BELOW
    if n > 1 and greedy and not as_flag(fields.get("use_beam_search")):
        yield refused("n", f'"n" is {n} at temperature 0, where all answers are one; give n 1')
    truncate = as_integer(fields.get("truncate_prompt_tokens")) or 0
    if truncate > server.max_model_len:
        yield refused(
            "truncate_prompt_tokens",
            f'"truncate_prompt_tokens" is {truncate:,}, more than the context of '
            f"{server.max_model_len:,}",
        )
    yield from _token_ids(fields, server)
    yield from _structure(fields)


def _server(body: Body, server: Server) -> Iterator[Verdict]:
    """What depends on the model, and on the arguments that the server is started with."""
    fields = body.fields
    if as_flag(fields.get("stream")):
        yield refused("stream", '"stream" cannot be true in a batch; leave it out')
    if body.url == CHAT:
        yield from _messages(fields.get("messages"), server)
        yield from _parsers(fields, server)
        yield from _template(fields, server)
    else:
        if fields.get("suffix"):
            yield refused("suffix", '"suffix" is only for models that fill in; leave it out')
        if not fields.get("prompt_embeds"):
            yield from _prompt(fields.get("prompt"), server)
    budget = as_integer(fields.get("thinking_token_budget"))
    if budget is not None and budget >= 0 and not server.argument("reasoning_parser"):
        yield refused("thinking_token_budget", '"thinking_token_budget" needs a reasoning_parser')
    salt = fields.get("cache_salt")
    if isinstance(salt, str) and any(char in salt for char in "@/\\\0"):
        yield refused("cache_salt", '"cache_salt" holds one of @ / \\ or NUL; leave them out')


def _template(fields: Mapping[str, Any], server: Server) -> Iterator[Verdict]:
    if as_flag(fields.get("continue_final_message")) and as_flag(
        fields.get("add_generation_prompt", True)
    ):
        yield refused(
            "continue_final_message",
            '"continue_final_message" needs "add_generation_prompt": false',
        )
    kwargs = fields.get("chat_template_kwargs")
    inner = kwargs.get("chat_template") if isinstance(kwargs, dict) else None
    templates = (fields.get("chat_template"), inner)
    trusted = server.argument("trust_request_chat_template")
    if any(template is not None for template in templates) and not trusted:
        yield refused(
            "chat_template",
            'a "chat_template" in a request is refused unless the server is started with '
            "trust_request_chat_template",
        )


def _logprobs(name: str, number: int, server: Server) -> Iterator[Verdict]:
    most = server.arguments.get("max_logprobs", _MOST_LOGPROBS)
    most = server.vocab if most == -1 else most
    if (server.vocab if number == -1 else number) > most:
        yield refused(name, f'"{name}" is {number}, the server gives at most {most} (max_logprobs)')


def _token_ids(fields: Mapping[str, Any], server: Server) -> Iterator[Verdict]:
    """Lists of token ids, within the vocabulary."""
    for name in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids"):
        ids = fields.get(name)
        for item in ids if isinstance(ids, list) else ():
            token = as_integer(item)
            if token is None or not 0 <= token < server.vocab:
                yield refused(name, f'"{name}" has {show(item)}; ids go to {server.vocab - 1}')
    if fields.get("allowed_token_ids") == []:
        yield refused("allowed_token_ids", '"allowed_token_ids" is empty; leave it out')
    chosen = fields.get("logprob_token_ids")
    if isinstance(chosen, list) and len(chosen) > _MOST_LOGPROB_TOKEN_IDS:
        yield refused("logprob_token_ids", f'"logprob_token_ids" has {len(chosen)} ids')
    bias = fields.get("logit_bias")
    for key in bias if isinstance(bias, dict) else ():
        try:
            token = int(key)
        except ValueError:
            yield refused("logit_bias", f'"logit_bias" has the key {show(key)}, no token id')
            return
        if not 0 <= token < server.vocab:
            yield refused("logit_bias", f'"logit_bias" has {token}; ids go to {server.vocab - 1}')


def _structure(fields: Mapping[str, Any]) -> Iterator[Verdict]:
    """`structured_outputs` and `response_format`."""
    asked = fields.get("structured_outputs")
    if asked is not None:
        if not isinstance(asked, dict):
            yield refused("structured_outputs", '"structured_outputs" is no object')
            return
        named = [name for name in _CONSTRAINTS if asked.get(name) is not None]
        if len(named) != 1:
            said = f"says {' and '.join(named)}" if named else "says none"
            yield refused(
                "structured_outputs",
                f'"structured_outputs" {said}; give one of {", ".join(_CONSTRAINTS)}',
            )
        if asked.get("choice") == []:
            yield refused("structured_outputs", '"structured_outputs" has no choices')
    form = fields.get("response_format")
    if form is None:
        return
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in _FORMATS:
        yield refused(
            "response_format",
            f'"response_format" of type {show(kind)}; known are {", ".join(_FORMATS)}',
        )
        return
    if kind == "json_schema":
        schema = form.get("json_schema")
        if not isinstance(schema, dict) or schema.get("schema") is None:
            yield refused(
                "response_format", '"response_format" has no schema: give json_schema.schema'
            )
    if asked is not None and kind != "text" and named and named[0] not in _same_as(kind):
        yield refused(
            "response_format", '"response_format" and "structured_outputs" ask for two structures'
        )


def _same_as(kind: str) -> tuple[str, ...]:
    """The constraint that a response format is."""
    return {"json_object": ("json_object",), "json_schema": ("json",)}.get(kind, (kind,))


def _tools(fields: Mapping[str, Any]) -> Iterator[Verdict]:
    tools = fields.get("tools")
    if tools is not None and not isinstance(tools, list):
        yield refused("tools", f'"tools" is {show(tools)}; give a list')
        return
    if tools == []:
        yield refused("tools", '"tools" is empty; leave it out')
    for tool in tools or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield refused("tools", "a tool has no function with a name")
            return
        if tool.get("type", "function") != "function":
            yield refused("tools", f"a tool is of type {show(tool['type'])}, not function")
    choice = fields.get("tool_choice", "auto" if tools else "none")
    if choice is None or choice == "none":
        return
    if not tools:
        yield refused("tool_choice", f'"tool_choice" is {show(choice)} without "tools"')
        return
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in [tool["function"]["name"] for tool in tools]:
            yield refused("tool_choice", f'"tool_choice" names {show(name)}, which is no tool')
        structured = fields.get("structured_outputs")
        if isinstance(structured, dict) and any(
            structured.get(name) is not None for name in _ONE_OF
        ):
            yield refused("tool_choice", '"tool_choice" excludes "structured_outputs"')
    elif choice not in ("auto", "required"):
        yield refused(
            "tool_choice", f'"tool_choice" is {show(choice)}; known are none, auto and required'
        )


def _parsers(fields: Mapping[str, Any], server: Server) -> Iterator[Verdict]:
    """Tools need a parser, unless none of them is to be called."""
    tools = fields.get("tools")
    choice = fields.get("tool_choice", "auto" if tools else "none")
    if choice is None or choice == "none":
        return
    parser = server.argument("tool_call_parser")
    if choice == "auto" and not (parser and server.argument("enable_auto_tool_choice")):
        yield refused(
            "tools",
            '"tools" without "tool_choice": "none" need enable_auto_tool_choice=true and a '
            "tool_call_parser",
        )
    elif choice != "auto" and not parser:
        yield refused("tool_choice", f'"tool_choice" {show(choice)} needs a tool_call_parser')


def _prompt(prompt: object, server: Server) -> Iterator[Verdict]:
    if prompt is None or prompt == "" or prompt == []:
        yield refused("prompt", '"prompt" is empty')
    elif isinstance(prompt, list):
        for item in prompt:
            if isinstance(item, bool) or not isinstance(item, int | str | list):
                yield refused("prompt", f'"prompt" holds {show(item)}; give texts or token ids')
                return
            if item == []:
                yield refused("prompt", '"prompt" holds an empty prompt')
            if isinstance(item, int) and not 0 <= item < server.vocab:
                yield refused("prompt", f'"prompt" has token {item}; ids go to {server.vocab - 1}')
            if isinstance(item, list):
                yield from _prompt(item, server)
    elif not isinstance(prompt, str):
        yield refused("prompt", f'"prompt" is {show(prompt)}; give a text or token ids')


def _messages(messages: object, server: Server) -> Iterator[Verdict]:
    """Messages of any role; a content may be left out, but is null for the assistant only."""
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
        if not isinstance(message.get("role"), str):
            yield refused("messages", f"{where} has no role")
            return
        content = message.get("content")
        if content is None and "content" in message and message.get("role") != "assistant":
            yield refused("messages", f"{where}: content is null; give a text")
        if content is not None and not isinstance(content, str | list):
            yield refused("messages", f"{where}: content is {show(content)}; give a text")
            return
        for part in content if isinstance(content, list) else ():
            yield from _part(part, where, server)


def _part(part: object, where: str, server: Server) -> Iterator[Verdict]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _PARTS:
        yield refused("messages", f"{where}: a part of content is of type {show(kind)}")
    elif kind in _NOT_TEXT and server.multimodal is False:
        yield refused("messages", f"{where}: the model takes no {str(kind).partition('_')[0]}")
