"""`usage_of`: how many tokens an answer says that it took."""

import json
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """Tokens of one request: a prompt counts once, whatever the number of answers.

    ``cached_tokens`` is how much of the prompt the prefix cache held.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def usage_of(body: bytes) -> Usage:
    """The usage in the body of an answer; zeros where it tells none.

    Completions and embeddings count ``prompt_tokens``, ``/v1/responses`` counts ``input_tokens``.
    """
    answer = json.loads(body)
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return Usage(0, 0, 0)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return Usage(
        _count(usage.get("prompt_tokens") or usage.get("input_tokens")),
        _count(usage.get("completion_tokens") or usage.get("output_tokens")),
        _count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
