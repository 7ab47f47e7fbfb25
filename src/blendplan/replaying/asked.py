"""From a row of a plan to what an engine's server is asked."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from blendplan.engines.protocol import EngineRequest
from blendplan.planfile.batch_lines import request_in
from blendplan.planfile.rows import Work
from blendplan.printable import show
from blendplan.requests.endpoints import path_of
from blendplan.requests.record import MOST_TOKENS, BadRecordError, parse_line


def asked(rows: Work, row: int) -> EngineRequest:
    """The request in one row of a plan, as its server gets it: the body as it came.

    A plain line is the body of the request that it amounts to. A known output length is asked for,
    where the request does not say otherwise.

    Args:
        rows: the requests of the plan.
        row: row of the first answer of the one to run. Of the known output lengths
            in its body and of its row, the shorter one counts.

    Raises:
        BadRecordError: there is neither a prompt nor a body with one.
    """
    line: bytes | None = rows.bodies[row].as_py()
    fields = parse_line(line) if line else {}
    given, answers = rows.prompt_token_ids[row], len(rows.rows_of(row))
    prompt = given.values.to_numpy() if given.is_valid else None
    url, body = request_in(fields, prompt, answers=answers, stated=line is not None)
    known = max(0, int(rows.output_tokens[row]))
    if line is not None:
        # That of the row is cut to the context.
        stated = _stated(fields) or _stated(body)
        known = min(stated, known or stated)
    if known > 0:
        cap = {"max_completion_tokens": known} if "max_completion_tokens" in body else {}
        body = {"ignore_eos": True, **body, "max_tokens": known, **cap}
    posted = {name: value for name, value in body.items() if name != "output_tokens"}
    return EngineRequest(
        row, _path(url), json.dumps(posted).encode(), answers, known if known > 0 else -1
    )


def _path(url: str) -> str:
    """Path on the engine's server; hosts and deployments of other services are left out."""
    try:
        return path_of(url)
    except ValueError:
        return f"/{urlsplit(url).path.lstrip('/')}"


def _stated(fields: Mapping[str, Any]) -> int:
    """The output length that a body states, 0 where it states none."""
    value = fields.get("output_tokens")
    if value is None:
        return 0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MOST_TOKENS:
        raise BadRecordError(f'"output_tokens" is {show(value)}; give a whole number')
    return int(value)
