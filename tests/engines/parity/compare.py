"""Where a line of a replay's results differs from what vLLM's servers answered."""

import math
from collections.abc import Iterator
from typing import Any

from tests.engines.parity.kind import Kind

# What no two answers share (the fingerprint is one of the engine's arguments, and those name the
# scheduler), and what a replay always fills in.
_OWN = frozenset(
    {"id", "created", "created_at", "completed_at", "request_id", "system_fingerprint"}
)
_FILLED_IN = frozenset({"prompt_tokens_details", "input_tokens_details"})
# What depends on the tokens that were sampled.
_SAMPLED = frozenset({"completion_tokens", "output_tokens", "total_tokens", "finish_reason"})
_NEAR = 1e-3  # of log probabilities and of pooled values, between batches of different sizes


def status_of(line: dict[str, Any]) -> int | None:
    """The HTTP status of a line of results, also of one that has only an error."""
    response = line.get("response") or {}
    status = response.get("status_code")
    return None if status is None else int(status)


def differences(kind: Kind, reference: dict[str, Any], line: dict[str, Any]) -> list[str]:
    """What is not the same, one line each.

    Args:
        kind: the request.
        reference: a line of `reference`.
        line: a line of a replay's results.
    """
    wanted = reference["status"] if kind.here is None else kind.here
    status = status_of(line)
    if status not in (wanted, reference.get("or_status")):
        return [f"status {status}, not {wanted} as of the {reference['by']}: {_reason(line)}"]
    response = line.get("response") or {}
    if status != 200:
        return [] if _reason(line) else ["an error without a message"]
    if line.get("error") is not None:
        return [f"an answer with an error: {line['error']}"]
    if reference["status"] != 200:
        return []
    return list(_unequal(reference["body"], response.get("body"), kind.text == "same"))


def _reason(line: dict[str, Any]) -> str:
    """The message of an error line."""
    body = (line.get("response") or {}).get("body")
    for place in (line.get("error"), body):
        error = place.get("error", place) if isinstance(place, dict) else place
        message = error
        if isinstance(error, dict):
            message = error.get("message") or error.get("detail")
        if message:
            return str(message)
    return ""


def _unequal(wanted: Any, found: Any, same_text: bool, path: str = "body") -> Iterator[str]:
    """Compare two bodies, all the way down."""
    if type(wanted) is not type(found):
        yield f"{path} is {_short(found)}, not {_short(wanted)}"
    elif isinstance(wanted, dict):
        skipped = _OWN | _FILLED_IN | (frozenset() if same_text else _SAMPLED)
        if wanted.keys() != found.keys():
            lacks, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
            yield f"{path} lacks {lacks} and has {more} more"
        for name in wanted.keys() & found.keys() - skipped:
            yield from _unequal(wanted[name], found[name], same_text, f"{path}.{name}")
    elif isinstance(wanted, list):
        if len(wanted) != len(found) and same_text:
            yield f"{path} has {len(found)} elements, not {len(wanted)}"
        for place, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from _unequal(one, other, same_text, f"{path}[{place}]")
    elif isinstance(wanted, float):
        if same_text and not math.isclose(wanted, found, rel_tol=_NEAR, abs_tol=_NEAR):
            yield f"{path} is {found}, not {wanted}"
    elif isinstance(wanted, str):
        if same_text and wanted != found:
            yield f"{path} is {_short(found)}, not {_short(wanted)}"
    elif wanted != found:
        yield f"{path} is {_short(found)}, not {_short(wanted)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}... ({len(text)} characters)"
