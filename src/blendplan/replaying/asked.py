"""From a row of a plan to what an engine's server is asked."""

import json
from collections.abc import Mapping
from typing import Any

from blendplan.engines.protocol import EngineRequest
from blendplan.planfile.rows import Work
from blendplan.printable import show
from blendplan.requests.record import MOST_TOKENS, BadRecordError, parse_line

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
# Of a plain line, what is no parameter of the request.
_NO_PARAMETERS = frozenset(["id", "custom_id", "method", "url", "body", "output_tokens"])


def asked(rows: Work, row: int) -> EngineRequest:
    """The request in one row of a plan, as its server gets it: the body as it came.

    A plain line is the body of the request that it amounts to. A known output length is asked for,
    where the request does not say otherwise.

    Args:
        rows: the requests of the plan.
        row: row of the first answer of the one to run. A known output length in its body wins over
            that of its row.

    Raises:
        BadRecordError: there is neither a prompt nor a body with one.
    """
    line: bytes | None = rows.bodies[row].as_py()
    fields = parse_line(line) if line else {}
    answers = len(rows.rows_of(row))
    if fields.get("body") is not None:
        body = fields["body"]
        if not isinstance(body, dict):
            raise BadRecordError(f'"body" is {show(body)}; it must be a JSON object')
    else:
        body = {name: value for name, value in fields.items() if name not in _NO_PARAMETERS}
    if line is None and answers > 1:
        body = {**body, "n": answers}
    body = _with_prompt(rows, row, body)
    known = _stated(fields) or _stated(body) or int(rows.output_tokens[row])
    if known > 0:
        cap = {"max_completion_tokens": known} if "max_completion_tokens" in body else {}
        body = {"ignore_eos": True, **body, "max_tokens": known, **cap}
    body.pop("output_tokens", None)
    return EngineRequest(
        row, _url(fields, body), json.dumps(body).encode(), answers, known if known > 0 else -1
    )


def _with_prompt(rows: Work, row: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with a prompt where the server looks for it."""
    body = dict(body)
    tokens = body.pop("prompt_token_ids", None)
    if body.get("prompt") is None and body.get("messages") is None and tokens is None:
        given = rows.prompt_token_ids[row]
        if given.is_valid and "input" not in body:
            tokens = given.values.to_numpy().tolist()
    if tokens is not None:
        body["prompt"] = tokens
    return body


def _url(fields: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Path on the engine's server: that of the batch line, without a host before it."""
    url = fields.get("url")
    if not isinstance(url, str):
        return CHAT if body.get("messages") is not None else TEXT
    path = url.split("?")[0]
    for known in (CHAT, TEXT):
        if path.endswith(known.removeprefix("/v1")) and (known == CHAT or CHAT[3:] not in path):
            return known
    return path if path.startswith("/") else f"/{path}"


def _stated(fields: Mapping[str, Any]) -> int:
    """The output length that a body states, 0 where it states none."""
    value = fields.get("output_tokens")
    if value is None:
        return 0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MOST_TOKENS:
        raise BadRecordError(f'"output_tokens" is {show(value)}; give a whole number')
    return int(value)
