"""`Shape`: how the rows of somebody's data become requests.

Columns that are neither the prompt nor a parameter of it are carried beside the request, under
`SOURCE_COLUMNS`, to stand beside its answer; no engine sees them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from blendplan.checks.arguments import dictionary, flag, keywords, text, whole
from blendplan.errors import BlendplanError
from blendplan.names import near
from blendplan.printable import printable, show
from blendplan.requests.bad import BadRecordError
from blendplan.requests.endpoints import (
    CHAT,
    OTHER_NAMES,
    RESPONSES,
    SOURCE_COLUMNS,
    WITHOUT_OUTPUT,
    endpoint_of,
    is_known,
    known_parameters,
)
from blendplan.requests.record import MOST_TOKENS, read_record
from blendplan.requests.template import Template

PROMPT_FIELDS = ("prompt_token_ids", "prompt", "messages", "body")
# Columns beside a prompt column or a template that say something of the request, not of the data.
_SAYING_NAMES = """
custom_id id max_tokens max_completion_tokens min_tokens output_tokens prompt_tokens temperature
top_p top_k min_p n seed stop presence_penalty frequency_penalty repetition_penalty logit_bias
logprobs top_logprobs ignore_eos response_format structured_outputs tools tool_choice
chat_template_kwargs
"""
SAYING = frozenset(_SAYING_NAMES.split())
_CAPS = ("max_tokens", "max_completion_tokens")
# What a parameter cannot be: it is what requests are made of, or stands around them.
_NO_PARAMETER_NAMES = """
prompt messages prompt_token_ids input custom_id id url method body output_tokens prompt_tokens
"""
_NO_PARAMETERS = frozenset((*_NO_PARAMETER_NAMES.split(), SOURCE_COLUMNS))
_NUMBER_NAMES = """
temperature top_p top_k min_p seed presence_penalty frequency_penalty repetition_penalty
"""
_NUMBERS = frozenset(_NUMBER_NAMES.split())


@dataclass(frozen=True)
class Shape:
    """What is made of each row or line; nothing, by default.

    Attributes:
        prompt_column: the field or column that holds the prompt: a text, messages or token ids.
        template: the prompt as a text with columns in it, see `Template`.
        system: the system message of requests that have none; makes a chat of a text.
        chat: whether a text is a user's message to a chat, rather than a text to be continued.
        id_column: the field or column that holds the id.
        max_tokens: cap on the output of requests that state none.
        parameters: of requests that do not state them, by name.
    """

    prompt_column: str | None = None
    template: Template | None = None
    system: str | None = None
    chat: bool = False
    id_column: str | None = None
    max_tokens: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, function: str, given: Mapping[str, Any]) -> "Shape":
        """A shape from the keyword arguments of a function.

        Args:
            function: its name, for messages.
            given: attributes by name, the template as a text.

        Raises:
            BlendplanError: an unknown argument, or one that cannot be.
        """
        keywords(function, given, SHAPING)
        stated = {name: value for name, value in given.items() if value is not None}
        for name in ("prompt_column", "id_column"):
            if name in stated:
                text(name, stated[name], "give the name of a column")
        if "template" in stated:
            stated["template"] = Template.of(text("template", stated["template"], "give a text"))
            if "prompt_column" in stated:
                raise BlendplanError("both a template and a prompt column; give one of them")
        if "system" in stated:
            text("system", stated["system"], "give a text")
        if "chat" in stated:
            stated["chat"] = flag("chat", stated["chat"])
        if "max_tokens" in stated:
            stated["max_tokens"] = whole("max_tokens", stated["max_tokens"], 1, MOST_TOKENS)
        parameters = dictionary("parameters", stated.get("parameters", {}), "give a dictionary")
        _check_parameters(parameters, "max_tokens" in stated)
        return cls(**{**stated, "parameters": parameters})

    def __bool__(self) -> bool:
        return self != AS_IT_IS

    @property
    def makes_prompt(self) -> bool:
        """Whether it says where the prompt comes from."""
        return self.prompt_column is not None or self.template is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that every table must have."""
        named = () if self.template is None else self.template.columns
        stated = (self.prompt_column, *named, self.id_column)
        return tuple(dict.fromkeys(name for name in stated if name is not None))

    def as_options(self) -> dict[str, Any]:
        """What it says, as JSON values by the names of `of`."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.template is not None:
            given["template"] = self.template.text
        return {name: value for name, value in given.items() if value}

    def said_by(self, names: Iterable[str]) -> list[str]:
        """Columns beside the prompt that are taken for parameters of requests, by their names."""
        if not self.makes_prompt:
            return []
        own = (self.prompt_column, "custom_id", "id")
        return [name for name in names if name in SAYING and name not in own]

    def shaped(
        self, row: Mapping[str, Any], carried: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """The line that a row or line becomes.

        Args:
            row: its fields.
            carried: the same as they are to be carried, where that is not as they are.

        Raises:
            BadRecordError: it lacks what the shape needs, or cannot have it.
        """
        line = self._with_prompt(row, row if carried is None else carried)
        if self.id_column is not None:
            line = self._with_id(line, row)
        inner = line.get("body")
        if not isinstance(inner, dict):
            return self._asking(line, None)
        return {**line, "body": self._asking(inner, line.get("url"))}

    def named(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row that cannot be shaped, with its id where all requests have theirs."""
        if self.id_column is None or row.get(self.id_column) is None:
            return row
        return {**row, "custom_id": row[self.id_column]}

    def _with_prompt(self, row: Mapping[str, Any], carried: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.makes_prompt:
            return row
        if self.template is not None:
            prompt: Any = self.template.filled(row)
        else:
            assert self.prompt_column is not None
            prompt = row.get(self.prompt_column)
            stated = any(row.get(name) is not None for name in PROMPT_FIELDS)
            if prompt is None and stated:
                return row
            if prompt is None:
                names = printable(", ".join(show(name) for name in row))[:80] or "none"
                is_null = self.prompt_column in row
                what = "fill it in or leave the row out" if is_null else f"it has {names}"
                raise BadRecordError(
                    f"no value in {show(self.prompt_column)}, which is to hold the prompt; {what}"
                )
        made_of = {self.prompt_column} if self.prompt_column is not None else set()
        saying = {
            name: value for name, value in row.items() if name in SAYING and name not in made_of
        }
        return {prompt_field(prompt): prompt, **saying, SOURCE_COLUMNS: carried}

    def _with_id(self, line: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self.id_column is not None
        value = row.get(self.id_column)
        if value is None:
            raise BadRecordError(
                f"no value in {show(self.id_column)}, which is to hold the id; give one to every "
                "request"
            )
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise BadRecordError(
                f"{show(self.id_column)}, which is to hold the id, is {show(value)}; ids are texts "
                "or whole numbers"
            )
        others = {name: item for name, item in line.items() if name not in ("custom_id", "id")}
        return {"custom_id": value, **others}

    def _asking(self, body: Mapping[str, Any], url: object) -> Mapping[str, Any]:
        """A body with what it does not state itself."""
        endpoint = _endpoint(url)
        if self.chat or self.system is not None:
            body = self._as_chat(body, endpoint)
        stated = {name for name in body if body[name] is not None}
        added = {
            name: value
            for name, value in self.parameters.items()
            if name not in stated and not (name in _CAPS and stated.intersection(_CAPS))
        }
        cap = "max_output_tokens" if endpoint == RESPONSES else "max_tokens"
        capped = stated.union(added).intersection((*_CAPS, "max_output_tokens"))
        if self.max_tokens is not None and not capped and endpoint not in WITHOUT_OUTPUT:
            added[cap] = self.max_tokens
        return {**body, **added} if added else body

    def _as_chat(self, body: Mapping[str, Any], endpoint: str | None) -> Mapping[str, Any]:
        if endpoint == RESPONSES:
            if self.system is None or body.get("instructions") is not None:
                return body
            return {**body, "instructions": self.system}
        messages = body.get("messages")
        if messages is None and endpoint in (None, CHAT) and isinstance(body.get("prompt"), str):
            messages = [{"role": "user", "content": body["prompt"]}]
        if not isinstance(messages, list):
            what = "a system message" if self.system is not None else "a chat"
            raise BadRecordError(f"{what} needs a text or messages; the request has none of these")
        if self.system is not None and not any(_is_system(message) for message in messages):
            messages = [{"role": "system", "content": self.system}, *messages]
        rest = {name: value for name, value in body.items() if name not in ("prompt", "messages")}
        return {"messages": messages, **rest}


AS_IT_IS = Shape()
SHAPING = tuple(one.name for one in fields(Shape))
"""Keyword arguments of `read_requests` and `plan_files` that make a shape."""


def prompt_field(value: object) -> str:
    """The name under which a prompt is read, by what it is."""
    if isinstance(value, list) and value:
        if isinstance(value[0], dict):
            return "messages"
        if isinstance(value[0], int):
            return "prompt_token_ids"
    return "prompt"


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _endpoint(url: object) -> str | None:
    try:
        return None if url is None else endpoint_of(url)
    except ValueError:  # which is said when the line is read
        return None


def _check_parameters(parameters: Mapping[str, Any], capped: bool) -> None:
    for name, value in parameters.items():
        if name in _NO_PARAMETERS:
            raise BlendplanError(f"parameter {show(name)} is none of sampling; leave it out")
        if name in OTHER_NAMES:
            raise BlendplanError(f"no engine knows the parameter {show(name)}; {OTHER_NAMES[name]}")
        if not is_known(name, in_body=True) and (close := near(name, known_parameters(), 1)):
            raise BlendplanError(
                f"no engine knows the parameter {show(name)}; did you mean {close[0]!r}?"
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _NUMBERS and not is_number:
            raise BlendplanError(f"parameter {name} is {show(value)}; give a number")
        if name in _CAPS and capped:
            raise BlendplanError(f"max_tokens is given twice, once as the parameter {name}")
    try:
        read_record({"prompt": "a", **parameters})
    except BadRecordError as error:
        raise BlendplanError(f"parameters: {error}") from None
