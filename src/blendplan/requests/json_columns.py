"""Columns of parsed JSON lines to a `Block`, when all of them are good.

The schema is what the exact reader looks at, with types so narrow that the parser itself refuses
most of what would need a second look.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.requests.collect import Block
from blendplan.requests.columns import several
from blendplan.requests.endpoints import CHAT, COMPLETION_TOKENS, COMPLETIONS, endpoint_of
from blendplan.requests.prompts import LARGEST_TOKEN_ID
from blendplan.requests.record import MOST_ANSWERS, MOST_TOKENS
from blendplan.requests.tokens import estimate_messages, estimate_tokens

Prompts = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Token ids of some prompts, int32 [total], and the length of each, int64 [k]."""

# A null type refuses any value: where one of these stands, the line is for the exact reader.
_NOTHING = pa.null()
_MESSAGE = pa.struct(
    {
        "role": pa.string(),
        "content": pa.string(),
        "name": _NOTHING,
        "tool_calls": _NOTHING,
        "tool_call_id": _NOTHING,
    }
)
_BODY = {
    "prompt": pa.string(),
    "prompt_token_ids": pa.list_(pa.int64()),
    "messages": pa.list_(_MESSAGE),
    "max_tokens": pa.int64(),
    "max_completion_tokens": pa.int64(),
    "output_tokens": pa.int64(),
    "n": pa.int64(),
    "tools": _NOTHING,
    "response_format": pa.struct({"type": pa.string(), "json_schema": pa.struct({})}),
}
LINE_SCHEMA = pa.schema(
    {"custom_id": pa.string(), "id": pa.string(), "url": pa.string(), "body": pa.struct(_BODY)}
    | _BODY
)
_KINDS = ("prompt", "prompt_token_ids", "messages")


def block_of_columns(
    line: dict[str, pa.Array], rows: NDArray[np.int64], bodies: pa.Array
) -> Block | None:
    """Check the columns and put them together; None when any value needs the exact reader.

    Args:
        line: the columns of `LINE_SCHEMA`, k values each.
        rows: line numbers in the file, from 0; int64 [k].
        bodies: the lines as they are, large_binary [k].
    """
    body, url = line["body"], line["url"]
    if body.null_count == len(rows):
        fields = {name: line[name] for name in _BODY}
    else:
        fields = {name: pc.struct_field(body, name) for name in _BODY}
    if 0 < body.null_count < len(rows):
        in_body = body.is_valid()
        fields = {name: pc.if_else(in_body, fields[name], line[name]) for name in _BODY}
    if _any(url.filter(body.is_null())):
        return None
    ids = pc.coalesce(line["custom_id"], line["id"])
    output_tokens = pc.coalesce(line["output_tokens"], fields["output_tokens"])
    max_tokens = pc.coalesce(fields["max_completion_tokens"], fields["max_tokens"])
    counts = (fields["max_tokens"], max_tokens, line["output_tokens"], output_tokens)
    if not _all_within(pc.binary_length(ids), 1) or not all(
        _all_within(column, 1, MOST_TOKENS) for column in counts
    ):
        return None
    if not _all_within(fields["n"], 1, MOST_ANSWERS):
        return None
    if _any(fields["response_format"]) and _lacks_schema(fields["response_format"]):
        return None
    prompts = _prompts(fields, url)
    if prompts is None:
        return None
    limited = _and(url.is_valid(), fields["messages"].is_null(), output_tokens.is_null())
    max_tokens = pc.if_else(_and(limited, max_tokens.is_null()), COMPLETION_TOKENS, max_tokens)
    return Block(
        ids=ids.cast(pa.large_string()),
        source_row=rows,
        token_ids=prompts[0],
        lengths=prompts[1],
        output_tokens=output_tokens.fill_null(-1).to_numpy().astype(np.int32),
        max_tokens=max_tokens.fill_null(-1).to_numpy().astype(np.int32),
        bodies=bodies,
        estimated=_any(fields["prompt"]) or _any(fields["messages"]),
        answers=_answers(fields),
    )


def _lacks_schema(formats: pa.Array) -> bool:
    """Whether a response is to follow a schema that is not given."""
    asked = pc.equal(pc.struct_field(formats, "type"), "json_schema").fill_null(False)
    given = pc.struct_field(formats, "json_schema").is_valid()
    return bool(pc.any(pc.and_not(asked, given)).as_py())


def _answers(fields: dict[str, pa.Array]) -> NDArray[np.int32] | None:
    """Answers that each request asks for, None where all ask for one; int32 [k]."""
    if not _any(fields["n"]):
        return None
    return several(fields["n"].fill_null(1).to_numpy().astype(np.int32))


def _prompts(fields: dict[str, pa.Array], url: pa.Array) -> Prompts | None:
    """Token ids of all prompts, in order, whatever their kinds."""
    kinds = [name for name in _KINDS if _any(fields[name])]
    has = {name: fields[name].is_valid().to_numpy(zero_copy_only=False) for name in kinds}
    if not kinds or not (sum(mask.astype(np.int64) for mask in has.values()) == 1).all():
        return None
    parts = []
    for name in kinds:
        column = fields[name] if len(kinds) == 1 else fields[name].drop_null()
        part = _token_ids(column) if name == "prompt_token_ids" else _text(column)
        if part is None or not _urls_ask_for(name, url.filter(pa.array(has[name]))):
            return None
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    lengths = np.empty(len(url), np.int64)
    for name, part in zip(kinds, parts, strict=True):
        lengths[has[name]] = part[1]
    starts = np.cumsum(lengths) - lengths
    token_ids = np.empty(int(lengths.sum()), np.int32)
    for name, part in zip(kinds, parts, strict=True):
        _spread(part[0], part[1], starts[has[name]], token_ids)
    return token_ids, lengths


@kernel
def _spread(
    prompts: NDArray[np.int32],
    lengths: NDArray[np.int64],
    starts: NDArray[np.int64],
    token_ids: NDArray[np.int32],
) -> None:
    """Copy prompts that lie one after the other to the given places."""
    place = 0
    for prompt in range(len(lengths)):
        source = prompts[place : place + lengths[prompt]]
        target = token_ids[starts[prompt] : starts[prompt] + lengths[prompt]]
        for i in range(len(source)):
            target[i] = source[i]
        place += lengths[prompt]


def _text(column: pa.Array) -> Prompts | None:
    """Estimated token ids of prompts or messages."""
    if pa.types.is_list(column.type):
        turns = column.flatten()
        roles, contents = pc.struct_field(turns, "role"), pc.struct_field(turns, "content")
        if (
            roles.null_count
            or contents.null_count
            or not _all_within(column.value_lengths(), 1)
            or not _all_within(pc.binary_length(roles), 1)
        ):
            return None
        return estimate_messages(column)
    if not _all_within(pc.binary_length(column), 1):
        return None
    return estimate_tokens(column.cast(pa.large_string()))


def _token_ids(column: pa.Array) -> Prompts | None:
    values = column.flatten()
    if (
        values.null_count
        or not _all_within(column.value_lengths(), 1)
        or not _all_within(values, 0, LARGEST_TOKEN_ID)
    ):
        return None
    return values.to_numpy().astype(np.int32), column.value_lengths().to_numpy().astype(np.int64)


def _all_within(column: pa.Array, low: int, high: int | None = None) -> bool:
    """Whether all values that are there are within the bounds."""
    bounds = pc.min_max(column).as_py()
    if bounds["min"] is None:
        return True
    return bool(bounds["min"] >= low and (high is None or bounds["max"] <= high))


def _urls_ask_for(kind: str, urls: pa.Array) -> bool:
    """Whether every endpoint that is named takes this kind of prompt."""
    try:
        asked = {endpoint_of(url) for url in pc.unique(urls).to_pylist() if url is not None}
    except ValueError:
        return False
    return asked <= {CHAT if kind == "messages" else COMPLETIONS}


def _and(*columns: pa.Array) -> pa.Array:
    both = columns[0]
    for column in columns[1:]:
        both = pc.and_(both, column)
    return both


def _any(column: pa.Array) -> bool:
    return bool(column.null_count < len(column))
