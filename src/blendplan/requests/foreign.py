"""Lines for the batches of other services, told by what only they have.

What each says of sampling means something else there, so none is taken for an OpenAI line; the
formats are those of the services' own documentation of batches, read in November 2026.
"""

from collections.abc import Mapping
from typing import Any

_RIGHT = (
    'write OpenAI batch lines: {"custom_id": ..., "method": "POST", '
    '"url": "/v1/chat/completions", "body": {...}}'
)


def foreign_format(line: Mapping[str, Any]) -> str | None:
    """Which other format a line is of and what to do, None where it is none that is known.

    Args:
        line: a line that has neither a prompt nor a body.
    """
    for names, what in _FORMATS:
        if all(line.get(name) is not None for name in names[:-1]) and _holds(line, names[-1]):
            return f"{what}; {_RIGHT}"
    entries = line.get("requests")
    if isinstance(entries, list) and entries and isinstance(entries[0], Mapping):
        entry = foreign_format(entries[0])
        return entry and f"all requests in one object, the first of which is {entry}"
    if line.get("custom_id") is not None and "response" in line:
        return "a line of results; give the file of the requests that they answer"
    return None


def _holds(line: Mapping[str, Any], name: str) -> bool:
    """Whether there is an object or a list, which no column of texts is."""
    return isinstance(line.get(name), dict | list)


# Fields of a line, the last of which holds its request.
_FORMATS = (
    (("custom_id", "params"), "a line of Anthropic's Message Batches"),
    (("recordId", "modelInput"), "a line of a batch of Amazon Bedrock"),
    (("key", "request"), "a line of a batch of the Gemini API"),
    (("request",), "a line of a batch of Gemini on Vertex AI"),
    (("contents",), "a request of the Gemini API"),
    (("inputs", "parameters"), "a request of Text Generation Inference"),
)
