"""`ChatTemplates`: the chat templates of a model, rendered as the server of an engine does.

What a request says of its template (tools, documents, keyword arguments, an open last turn) is
taken as vLLM 0.32 takes it, whose server calls `apply_chat_template` of ``transformers``
(`entrypoints/openai/chat_completion/protocol.py`, `renderers/hf.py`); the rendering itself is
Jinja's, in a sandbox with bounds.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.requests.bad import BadRecordError
from blendplan.requests.endpoints import CHAT, EMBEDDINGS, RESPONSES
from blendplan.requests.messages import conversation, with_system_for_developer
from blendplan.requests.record import Record
from blendplan.requests.responses import is_open

_REMEDY = "fetch the model's files again"
_DEFAULT, _TOOL_USE = "default", "tool_use"
_SPECIAL_TOKENS = frozenset(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
# What `apply_chat_template` takes itself and hands to no template.
_NOT_FOR_TEMPLATES = frozenset(
    [
        "conversation",
        "chat_template",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "continue_final_message",
    ]
)
_OPEN_END = "BLENDPLAN_OPEN_END "  # marks where an open turn ends; cut off with what follows
_MOST_OWN_TEMPLATES = 32


class ChatTemplates:
    """The templates of a model directory, one of them the default.

    They are ``chat_template.jinja`` and ``additional_chat_templates/*.jinja``, ``chat_template`` in
    ``tokenizer_config.json`` (a text, or a list of named ones), and ``chat_template.json``.

    Attributes:
        source: text of each template by its name.
        variables: special tokens by the names that templates have for them.
        developer: how many conversations had a role ``developer`` made into ``system``.
    """

    def __init__(self, directory: Path) -> None:
        config_path = directory / "tokenizer_config.json"
        config = _read_object(config_path)
        legacy = _read_object(directory / "special_tokens_map.json")
        self.variables = {
            key: text
            for key, value in {**legacy, **config}.items()
            if key in _SPECIAL_TOKENS and (text := _token_text(value)) is not None
        }
        self._path = config_path
        self.source = _of_config(config.get("chat_template"), config_path)
        file = directory / "chat_template.jinja"
        if file.is_file():
            self._path = file
            self.source[_DEFAULT] = read_text(file, str(file), _REMEDY, "a template")
        for other in sorted((directory / "additional_chat_templates").glob("*.jinja")):
            self.source[other.stem] = read_text(other, str(other), _REMEDY, "a template")
        # The processor's own, which servers prefer where there are no tools.
        self._of_processor = _read_object(directory / "chat_template.json").get("chat_template")
        self._compiled: dict[str, Any] = {}
        self.developer = 0
        if _DEFAULT in self.source:
            self._template(self.source[_DEFAULT])  # which is wrong for every request, or for none

    def __bool__(self) -> bool:
        return bool(self.source) or isinstance(self._of_processor, str)

    def render(self, record: Record, placeholders: Mapping[str, str]) -> str:
        """The text of a conversation, up to where the answer begins.

        Args:
            record: of a request with messages.
            placeholders: what stands for media of each kind where a template takes texts.

        Raises:
            BadRecordError: the template, or the server before it, refuses the request.
        """
        assert record.messages is not None
        arguments = template_arguments(record)
        tools = arguments.pop("tools", None)
        source = self._choose(record, tools)
        template = self._template(source)
        turns = conversation(
            record.messages, as_parts=template.iterates_over_parts, placeholders=placeholders
        )
        if (
            any(turn["role"] == "developer" for turn in turns)
            and '"developer"' not in source
            and "'developer'" not in source
        ):
            turns = with_system_for_developer(turns)
            self.developer += 1
        is_open = arguments.pop("continue_final_message", False)
        if is_open and arguments.get("add_generation_prompt"):
            raise BadRecordError(
                '"continue_final_message" with "add_generation_prompt", which is true by default; '
                "set it to false"
            )
        variables = {
            **self.variables,
            **{name: value for name, value in arguments.items() if name in template.variables},
            "add_generation_prompt": arguments.get("add_generation_prompt", False),
            "documents": arguments.get("documents"),
            "messages": turns,
            "tools": tools,
        }
        if not is_open:
            return self._text(template, variables)
        return self._open_text(template, source, variables)

    def _choose(self, record: Record, tools: object) -> str:
        own = record.body.get("chat_template")
        if isinstance(own, str) and own:
            return self.source.get(own, own)
        if tools is None and isinstance(self._of_processor, str):
            return self._of_processor
        if tools is not None and _TOOL_USE in self.source:
            return self.source[_TOOL_USE]
        if _DEFAULT in self.source:
            return self.source[_DEFAULT]
        names = ", ".join(show(name) for name in sorted(self.source)) or "none"
        raise BlendplanError(
            f"{self._path}: no chat template is the default one, only {names}; name one so"
        )

    def _template(self, source: str) -> Any:
        found = self._compiled.get(source)
        if found is None:
            if len(self._compiled) >= _MOST_OWN_TEMPLATES:  # requests may bring their own
                self._compiled.clear()
            found = self._compiled[source] = _compile(source, self._path)
        return found

    def _text(self, template: Any, variables: Mapping[str, Any]) -> str:
        try:
            text: str = template.render(variables)
        except BlendplanError as error:
            raise BlendplanError(f"{self._path}: bad chat template ({error})") from error
        except Exception as error:  # a template can run into anything
            raise BadRecordError(
                f"the chat template refuses the messages ({_line(error)}); check roles and order"
            ) from error
        return text

    def _open_text(self, template: Any, source: str, variables: dict[str, Any]) -> str:
        """The text of a conversation whose last turn goes on."""
        turns = deepcopy(variables["messages"])
        last = turns[-1]
        if "content" not in source:
            raise BadRecordError("the chat template reads no content that could be continued")
        if isinstance(last["content"], list):
            texts = [part for part in last["content"] if "text" in part]
            if not texts:
                raise BadRecordError("the last message has no text to continue")
            final, texts[-1]["text"] = texts[-1]["text"], texts[-1]["text"] + _OPEN_END
        else:
            final, last["content"] = last["content"], last["content"] + _OPEN_END
        text = self._text(template, {**variables, "messages": turns})
        mark = _OPEN_END.strip()
        if final.strip() not in text or mark not in text:
            raise BadRecordError("the chat template leaves out the last message, to be continued")
        end = text.rindex(mark)
        # A template that trims contents has cut the space behind the mark too.
        return text[:end] if text[end : end + len(_OPEN_END)] == _OPEN_END else text[:end].rstrip()


def template_arguments(record: Record) -> dict[str, Any]:
    """What a request gives its chat template besides its messages.

    Raises:
        BadRecordError: its tools are none.
    """
    body = record.body
    own = body.get("chat_template_kwargs")
    arguments = dict(own) if isinstance(own, dict) else {}
    effort = body.get("reasoning_effort")
    stated: dict[str, Any] = {
        "add_generation_prompt": body.get("add_generation_prompt", record.endpoint == CHAT),
        "continue_final_message": body.get("continue_final_message", False),
        "documents": body.get("documents"),
    }
    if record.endpoint == RESPONSES:
        reasoning, going_on = body.get("reasoning"), is_open(body)
        effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
        stated = {"add_generation_prompt": not going_on, "continue_final_message": going_on}
    if record.endpoint != EMBEDDINGS and effort is not None:
        stated["reasoning_effort"] = effort
        if "enable_thinking" not in arguments:
            stated["enable_thinking"] = effort != "none"
    arguments |= {name: value for name, value in stated.items() if value not in (None, "auto")}
    if arguments.get("tools") is None:
        arguments["tools"] = None if record.endpoint == EMBEDDINGS else _tools(record)
    return {
        name: value
        for name, value in arguments.items()
        if name not in _NOT_FOR_TEMPLATES or name == "continue_final_message"
    }


def _tools(record: Record) -> list[dict[str, Any]] | None:
    """Tools as the server writes them: every field that it knows, in its order."""
    tools = record.body.get("tools")
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise BadRecordError(f'"tools" is {show(tools)}; give a list of tools')
    if record.endpoint == RESPONSES:  # which has tools of the service's own, too
        tools = [
            tool for tool in tools if isinstance(tool, dict) and tool.get("type") == "function"
        ]
        if not tools:
            return None
    written = []
    for place, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRecordError(
                f'"tools"[{place}] is {show(tool)} that names no function; write '
                '{"type": "function", "function": {"name": "...", "parameters": {...}}}'
            )
        known = {key: function.get(key) for key in ("name", "description", "parameters")}
        late = tool.get("defer_loading")
        strict, later = function.get("strict"), function.get("defer_loading", late)
        known |= {} if strict is None else {"strict": strict}
        known |= {} if later is None else {"defer_loading": later}
        whole: dict[str, Any] = {"type": "function", "function": known}
        written.append(whole | ({} if late is None else {"defer_loading": late}))
    return written


def _compile(source: str, path: Path) -> Any:
    try:
        import jinja2
        import jinja2.ext

        from blendplan.requests.bounded_template import BoundedTemplate
    except ImportError as error:
        raise BlendplanError(
            f"the chat template in {path} needs jinja2; pip install 'blendplan[tokenizers]'"
        ) from error

    class GenerationTag(jinja2.ext.Extension):
        """``{% generation %}`` marks text for training; it is printed as it is."""

        tags = {"generation"}  # noqa: RUF012  (the name and type jinja2 asks for)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        return BoundedTemplate(
            source,
            filters={"tojson": _to_json},
            functions={"raise_exception": _raise_in_template, "strftime_now": _today},
            extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
        )
    except jinja2.TemplateError as error:
        raise BlendplanError(f"{path}: bad chat template ({_line(error)})") from error


def _of_config(found: object, path: Path) -> dict[str, str]:
    """Templates by name, from a text or from a list of named ones."""
    if found is None:
        return {}
    named = {_DEFAULT: found}
    if isinstance(found, list):
        entries = [entry for entry in found if isinstance(entry, dict)]
        named = {str(entry.get("name")): entry.get("template") for entry in entries}
    if not all(isinstance(text, str) for text in named.values()):
        raise BlendplanError(f'{path}: "chat_template" is not a text')
    return {name: str(text) for name, text in named.items()}


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return parse_json_object(read_text(path, str(path), _REMEDY), str(path))


def _token_text(value: object) -> str | None:
    """A special token is written as its text or as an object that holds it."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the escapes that Jinja's own filter makes for HTML, as ``transformers`` does."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_in_template(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _today(pattern: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(pattern)


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
