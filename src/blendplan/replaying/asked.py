"""From a row of a plan to what an engine's server is asked."""

import json
from urllib.parse import urlsplit

from blendplan.engines.protocol import EngineRequest
from blendplan.planfile.batch_lines import request_in
from blendplan.planfile.rows import Work
from blendplan.requests.endpoints import path_of
from blendplan.requests.record import parse_line, stated_count

_CAPS = ("max_tokens", "max_completion_tokens")


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
    cap = None if rows.max_tokens[row] < 0 else int(rows.max_tokens[row])
    url, body = request_in(fields, prompt, answers=answers, max_tokens=cap, stated=line is not None)
    known = max(0, int(rows.output_tokens[row]))
    if line is not None:
        # That of the row is cut to the context.
        stated = max(0, stated_count(fields, body, "output_tokens"))
        known = min(stated, known or stated)
    if known > 0:
        same = {"max_completion_tokens": known} if "max_completion_tokens" in body else {}
        body = {"ignore_eos": True, **body, "max_tokens": known, **same}
    is_open = fields.get("body") is None and body.get("messages") is None
    is_open &= all(body.get(name) is None for name in _CAPS)
    return EngineRequest(
        row,
        _path(url),
        json.dumps({name: body[name] for name in body if name != "output_tokens"}).encode(),
        answers,
        known if known > 0 else -1,
        int(rows.prompt_tokens[row]) if is_open else -1,
    )


def _path(url: str) -> str:
    """Path on the engine's server; hosts and deployments of other services are left out."""
    try:
        return path_of(url)
    except ValueError:
        return f"/{urlsplit(url).path.lstrip('/')}"
