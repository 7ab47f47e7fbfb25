"""`Tokenizer`: text and messages to token ids with the model's own tokenizer and chat template."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.errors import BlendplanError
from blendplan.requests.record import BadRecordError, Record, utf8
from blendplan.requests.tokens import PreparedText, render

_TEXT_BYTES_AT_ONCE = 1 << 20  # bounds the memory that the encodings take
# Templates that ask for the date get this one (the default of Llama 3.1's), so that the same
# requests give the same plan every day; dates are of one length.
_FIXED_DATE = (2024, 7, 26)
_REMEDY = "fetch the model's files again"


class Tokenizer:
    """The tokenizer of a model directory: ``tokenizer.json`` and the chat template beside it.

    The template is ``chat_template.jinja`` or ``chat_template`` in ``tokenizer_config.json``.
    Without one, messages are written out in a fixed form, and such prompts are not exact.

    Raises:
        BlendplanError: a file is damaged, or the ``tokenizers`` extra is not installed.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        try:
            import tokenizers
        except ImportError as error:
            raise BlendplanError(
                f"{path} needs the tokenizers package; pip install 'blendplan[tokenizers]'"
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise BlendplanError(f"{path} is not a tokenizer ({_line(error)})") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # The fast call leaves out character offsets; releases before 0.20.1 lack it.
        self._encode_batch = getattr(
            self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch
        )
        self._template = _ChatTemplate.of(directory)

    def prepare(self, record: Record) -> PreparedText:
        """The prompt, or messages through the chat template."""
        if record.messages is None or self._template is None:
            text = utf8(render(record), "the prompt")
            return PreparedText(text, record.messages is None, exact=record.messages is None)
        text = utf8(self._template.render(record), "the prompt")
        return PreparedText(text, False, exact=True)  # the template writes special tokens itself

    def encode(self, texts: Sequence[PreparedText]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Token ids, with the tokenizer's special tokens where the text lacks them."""
        ids: list[NDArray[np.int32]] = []
        start = 0
        while start < len(texts):
            end, size = start, 0
            special = texts[start].add_special_tokens
            while (
                end < len(texts)
                and size < _TEXT_BYTES_AT_ONCE
                and texts[end].add_special_tokens == special
            ):
                size += len(texts[end].text)
                end += 1
            batch = [text.text.decode("utf-8") for text in texts[start:end]]
            try:
                encoded = self._encode_batch(batch, add_special_tokens=special)
            except Exception as error:  # such as a vocabulary without an unknown token
                raise BlendplanError(
                    f"the tokenizer cannot take a prompt ({_line(error)}); check tokenizer.json"
                ) from error
            ids.extend(np.array(one.ids, np.int32) for one in encoded)
            start = end
        return np.concatenate(ids), np.array([len(one) for one in ids], np.int64)


class _ChatTemplate:
    """A Hugging Face chat template, rendered as engines do: sandboxed, immutable, whole turns."""

    def __init__(self, source: str, path: Path, variables: Mapping[str, Any]) -> None:
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
            self._template = BoundedTemplate(
                source,
                filters={"tojson": _to_json},
                functions={"raise_exception": _raise_in_template, "strftime_now": _fixed_date},
                extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
            )
        except jinja2.TemplateError as error:
            raise BlendplanError(f"{path}: bad chat template ({_line(error)})") from error
        self._path = path
        self._variables = variables

    @classmethod
    def of(cls, directory: Path) -> "_ChatTemplate | None":
        """The template of a model directory, None where there is none."""
        config_path = directory / "tokenizer_config.json"
        config = _read_config(config_path) if config_path.is_file() else {}
        variables = {
            key: _token_text(value) for key, value in config.items() if key.endswith("_token")
        }
        path = directory / "chat_template.jinja"
        if path.is_file():
            return cls(read_text(path, str(path), _REMEDY, "a template"), path, variables)
        source = config.get("chat_template")
        if isinstance(source, list):  # several named ones
            named = {
                str(entry.get("name")): entry.get("template")
                for entry in source
                if isinstance(entry, dict)
            }
            source = named.get("default")
        if source is None:
            return None
        if not isinstance(source, str):
            raise BlendplanError(f'{config_path}: "chat_template" is not a text')
        return cls(source, config_path, variables)

    def render(self, record: Record) -> str:
        """The text of a conversation up to where the answer begins."""
        extra = record.body.get("chat_template_kwargs")
        try:
            return self._template.render(
                {
                    **self._variables,
                    "add_generation_prompt": True,
                    "documents": None,
                    **(extra if isinstance(extra, dict) else {}),
                    "messages": record.messages,
                    "tools": record.body.get("tools"),
                }
            )
        except BlendplanError as error:
            raise BlendplanError(f"{self._path}: bad chat template ({error})") from error
        except Exception as error:  # a template can run into anything
            raise BadRecordError(
                f"the chat template refuses the messages ({_line(error)}); check roles and order"
            ) from error


def _read_config(path: Path) -> dict[str, Any]:
    return parse_json_object(read_text(path, str(path), _REMEDY), str(path))


def _token_text(value: object) -> object:
    """A special token is written as its text or as an object that holds it."""
    return value.get("content") if isinstance(value, dict) else value


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    options.setdefault("ensure_ascii", False)
    return json.dumps(value, indent=indent, **options)


def _raise_in_template(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _fixed_date(pattern: str) -> str:
    from datetime import datetime

    return datetime(*_FIXED_DATE).strftime(pattern)


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
