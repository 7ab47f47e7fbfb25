"""What an answer of a server says of itself: how many tokens it took, or what was wrong."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from blendplan.printable import printable

_LONGEST_MESSAGE = 300


class Usage(NamedTuple):
    """Tokens of one request: a prompt counts once, whatever the number of answers.

    ``cached_tokens`` is how much of the prompt the prefix cache held.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def usage_of(body: bytes | Mapping[str, Any]) -> Usage:
    """The usage in the body of an answer; zeros where it tells none.

    Completions and embeddings count ``prompt_tokens``, ``/v1/responses`` counts ``input_tokens``.
    """
    answer = json.loads(body) if isinstance(body, bytes) else body
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(usage, dict):
        return Usage(0, 0, 0)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return Usage(
        _count(usage.get("prompt_tokens") or usage.get("input_tokens")),
        _count(usage.get("completion_tokens") or usage.get("output_tokens")),
        _count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    return value if is_count else 0


def message_of(body: bytes) -> str:
    """What a server says is wrong, in one line of bounded length."""
    said = json.loads(body)
    while isinstance(said, dict):
        said = said.get("message") or said.get("error") or said.get("detail") or json.dumps(said)
    return printable(" ".join(str(said).split()))[:_LONGEST_MESSAGE]
