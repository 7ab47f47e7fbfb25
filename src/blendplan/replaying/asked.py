"""From a row of a plan to what an engine needs of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from blendplan.engines.protocol import EngineRequest
from blendplan.planfile.rows import Work
from blendplan.printable import show
from blendplan.requests.record import MOST_TOKENS, BadRecordError, parse_line, read_record

# Fields of a request that are no sampling parameters: what the engine is asked is said elsewhere
# (the prompt, the model), or they only mean something to a service.
_NOT_SAMPLING = frozenset(
    [
        *("model", "messages", "prompt", "prompt_token_ids", "tools", "tool_choice"),
        *("parallel_tool_calls", "stream", "stream_options", "user", "metadata", "store"),
        *("service_tier", "safety_identifier", "prompt_cache_key", "echo"),
        *("id", "custom_id", "method", "url", "body", "output_tokens"),
    ]
)


class Asked(NamedTuple):
    """A request for the engine, and the shape that its answer takes.

    ``chat`` tells a chat completion from a text completion; ``model`` is the model that the
    request names, None where it names none.
    """

    request: EngineRequest
    chat: bool
    model: str | None


def asked(rows: Work, row: int) -> Asked:
    """Put together the request in one row of a plan.

    Args:
        rows: the requests of the plan.
        row: row of the first answer of the one to run. A known output length in its body wins over
            that of its row.

    Raises:
        BadRecordError: there is neither a prompt nor a body with one.
    """
    tokens = rows.prompt_token_ids[row]
    prompt_token_ids = tokens.values.to_numpy().tolist() if tokens.is_valid else None
    body: bytes | None = rows.bodies[row].as_py()
    fields = parse_line(body) if body else {}
    inner: Mapping[str, Any] = fields.get("body") or fields
    answers = len(rows.rows_of(row))
    if not isinstance(inner, dict):
        raise BadRecordError(f'"body" is {show(inner)}; it must be a JSON object')
    text = messages = None
    if prompt_token_ids is None:
        record = read_record(fields)
        prompt_token_ids, text, messages = record.token_ids, record.text, record.messages
    known = _stated(fields) or _stated(inner) or int(rows.output_tokens[row])
    request = EngineRequest(
        row=row,
        prompt_token_ids=prompt_token_ids,
        text=text,
        messages=messages,
        tools=inner.get("tools") if messages is not None else None,
        parameters=_parameters(inner, answers),
        output_tokens=known,
        answers=answers,
    )
    model = inner.get("model")
    return Asked(request, _wants_chat(fields, inner), model if isinstance(model, str) else None)


def _parameters(inner: Mapping[str, Any], answers: int) -> dict[str, Any]:
    """Sampling parameters of a request that runs so many sequences."""
    parameters = {
        name: value
        for name, value in inner.items()
        if name not in _NOT_SAMPLING and value is not None
    }
    wanted = int(parameters.get("n", 1))
    if "best_of" in parameters and wanted < answers:
        # The best of all sequences are asked for: as a whole number, which columns may not keep.
        return parameters | {"n": wanted, "best_of": answers}
    parameters.pop("best_of", None)
    return parameters | ({"n": answers} if answers > 1 or "n" in parameters else {})


def _stated(fields: Mapping[str, Any]) -> int:
    """The output length that a body states, 0 where it states none."""
    value = fields.get("output_tokens")
    if value is None:
        return 0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MOST_TOKENS:
        raise BadRecordError(f'"output_tokens" is {show(value)}; give a whole number')
    return int(value)


def _wants_chat(fields: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
    url = fields.get("url")
    if isinstance(url, str):
        return url.endswith("/chat/completions")
    return inner.get("messages") is not None
