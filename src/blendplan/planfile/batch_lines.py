"""Requests of a plan as lines of an OpenAI batch file.

`batch_line` makes one, whatever it came from. `batch_block` makes many at once of lines that are
batch lines already, and hands back None where any is not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from blendplan.printable import show
from blendplan.requests.endpoints import REPEATS, SOURCE_COLUMNS
from blendplan.requests.record import BadRecordError, compact_json, json_line, parse_line

_PROMPTS = ("prompt_token_ids", "prompt", "messages")
# What a batch line says, in the order of OpenAI's own examples.
_OUTSIDE = ("custom_id", "method", "url", "body")
_NO_PARAMETERS = frozenset(
    (*_OUTSIDE, "id", "output_tokens", "prompt_tokens", SOURCE_COLUMNS, REPEATS)
)
# Quotes within a text are escaped, so this is a key; more may stand further in.
_BODY_BEGINS = re.compile(rb'"body"\s*:\s*\{(?=\s*")')
_NOTHING = pa.null()  # refuses any value, and with it the block
_PLAIN_BODY = pa.struct({"model": pa.string(), "priority": _NOTHING, "prompt_token_ids": _NOTHING})
_WHOLE_LINE = pa.schema(
    {"custom_id": pa.string(), "method": pa.string(), "url": pa.string(), "body": _PLAIN_BODY}
)
_PARSED_AT_ONCE = 1 << 20


def batch_line(
    name: str,
    line: bytes | None,
    prompt: NDArray[np.int32] | None,
    *,
    answers: int = 1,
    max_tokens: int | None = None,
    output_tokens: int | None = None,
    priority: int | None = None,
    model: str | None = None,
) -> bytes:
    """A request as a batch line, without the line end; byte for byte its own where it can be.

    Args:
        name: its id, where the line states none.
        line: its own JSON, a batch line or a plain one; None where it had none.
        prompt: its token ids, for a line without a prompt; int32 [p].
        answers, max_tokens: what it asks for, where there is no line that says so.
        output_tokens: its known length, where the line is not a batch line.
        priority: for the body, in place of what is there.
        model: for a body without one.

    Raises:
        BadRecordError: the line is no request, or there is no prompt.
    """
    fields = {} if line is None else parse_line(line)
    is_plain = fields.get("body") is None
    outside = {} if is_plain else fields
    url, asking = request_in(
        fields, prompt, answers=answers, max_tokens=max_tokens, stated=line is not None
    )
    added: dict[str, Any] = {} if priority is None else {"priority": priority}
    if model is not None and asking.get("model") is None:
        added["model"] = model
    if (
        line is not None
        and asking is outside.get("body")
        and all(outside.get(key) for key in _OUTSIDE)
    ):
        own = (
            None
            if b"\n" in line or added.keys() & asking.keys()
            else _spliced(line, [_beginning(added)])
        )
        if own is not None:
            return own
    stated = fields.get("id") if fields.get("custom_id") is None else fields["custom_id"]
    whole = {
        "custom_id": name if stated is None else stated,
        "method": outside.get("method") or "POST",
        "url": url,
        "body": asking | added,
    }
    whole |= {key: value for key, value in outside.items() if key not in {*_OUTSIDE, "id"}}
    if is_plain and output_tokens is not None:
        whole["output_tokens"] = output_tokens
    return json_line(whole)


def request_in(
    fields: Mapping[str, Any],
    prompt: NDArray[np.int32] | None,
    *,
    answers: int = 1,
    max_tokens: int | None = None,
    stated: bool = True,
) -> tuple[str, dict[str, Any]]:
    """The URL and the body that a line amounts to, the body itself where it is one.

    Args:
        fields: of a batch line or a plain one.
        prompt: its token ids, for a line without a prompt; int32 [p].
        answers, max_tokens: what it asks for, where nothing is ``stated``.
        stated: whether there was a line.

    Raises:
        BadRecordError: the line is no request, or there is no prompt.
    """
    is_plain = fields.get("body") is None
    body = _parameters(fields) if is_plain else fields["body"]
    if not isinstance(body, dict):
        raise BadRecordError(f'"body" is {show(body)}; it must be a JSON object')
    if not stated:
        body |= {} if max_tokens is None else {"max_tokens": max_tokens}
        body |= {"n": answers} if answers > 1 else {}
    url = None if is_plain else fields.get("url")
    asking = _with_prompt(body, url, prompt)
    endpoint = "/v1/completions" if asking.get("messages") is None else "/v1/chat/completions"
    return url or endpoint, asking


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body that a plain line amounts to."""
    return {key: value for key, value in fields.items() if key not in _NO_PARAMETERS}


def _with_prompt(
    body: dict[str, Any], url: object, prompt: NDArray[np.int32] | None
) -> dict[str, Any]:
    """The body itself, or one with the token ids where the OpenAI format has them.

    Raises:
        BadRecordError: there is no prompt.
    """
    ids = body.get("prompt_token_ids")
    has_text = any(body.get(key) is not None for key in ("prompt", "messages"))
    if ids is None and (has_text or url is not None):
        return body
    if has_text and isinstance(url, str) and url.endswith("/chat/completions"):
        return body  # which is asked with its messages
    if ids is None:
        if prompt is None:
            raise BadRecordError("it has no prompt")
        ids = prompt.tolist()
    rest = {key: value for key, value in body.items() if key not in _PROMPTS}
    return {"prompt": ids, **rest}


def batch_block(
    lines: list[bytes], priorities: range | None = None, model: str | None = None
) -> bytes | None:
    """Batch lines as they came, each with a line end; None where `batch_line` has to look at them.

    Args:
        lines: k lines.
        priorities: one for each; None for none.
        model: for bodies without one.
    """
    text = b"\n".join(lines)
    longest = max(map(len, lines))
    try:
        table = pj.read_json(
            pa.BufferReader(text),
            pj.ReadOptions(block_size=max(_PARSED_AT_ONCE, 2 * longest)),
            pj.ParseOptions(explicit_schema=_WHOLE_LINE, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowException, ValueError):
        return None
    if table.num_rows != len(lines) or text.count(b"\n") != len(lines) - 1:
        return None
    if any(table.column(name).null_count for name in _WHOLE_LINE.names):
        return None
    if any(pc.min(pc.binary_length(table.column(name))).as_py() == 0 for name in _OUTSIDE[:3]):
        return None
    added = [b""] * len(lines)
    if priorities is not None:
        if b'"priority"' in text:  # null, or further in
            return None
        added = [b'"priority":%d,' % priority for priority in priorities]
    if model is not None:
        models = pc.struct_field(table.column("body").combine_chunks(), "model").is_valid()
        if text.count(b'"model"') != models.true_count:
            return None
        name = _beginning({"model": model})
        added = [
            own if has_model else own + name
            for own, has_model in zip(added, models.to_pylist(), strict=True)
        ]
    spliced = _spliced(text, added)
    return None if spliced is None else spliced + b"\n"


def _beginning(fields: Mapping[str, Any]) -> bytes:
    """Fields as they stand at the beginning of an object that has others too."""
    return compact_json(fields)[1:-1].encode() + b"," if fields else b""


def _spliced(text: bytes, added: Sequence[bytes]) -> bytes | None:
    """Lines with something put at the beginning of each body; None where that is not safe."""
    if not any(added):
        return text
    if text.count(b'"body"') != len(added):
        return None
    beginnings = iter(added)
    spliced, places = _BODY_BEGINS.subn(lambda found: found[0] + next(beginnings), text)
    return spliced if places == len(added) else None
