"""Results as OpenAI batch output lines: one JSON object per request, the same for all engines."""

import json
from collections.abc import Mapping
from typing import Any

from blendplan.engines.protocol import Choice, Finished, TokenLogprob

_ID = "batch_req_"


def result_line(
    finished: Finished,
    *,
    source_row: int,
    custom_id: str,
    chat: bool,
    model: str,
    engine: str,
    created: int,
) -> bytes:
    """The line of a request that completed, without the newline.

    Args:
        finished: what the engine answered.
        source_row: row of the request in its file.
        custom_id: the request's id.
        chat: shape the body as a chat completion, else as a text completion.
        model: name of the model that answered.
        engine: what ran it, for the fingerprint.
        created: Unix time in seconds.
    """
    shape = _chat_choice if chat else _text_choice
    completion_tokens = finished.completion_tokens
    # Further answers find nearly all of the prompt, which counts once here.
    repeated = (len(finished.choices) - 1) * finished.prompt_tokens
    body = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{source_row}",
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": model,
        "system_fingerprint": engine,
        "choices": [shape(index, choice) for index, choice in enumerate(finished.choices)],
        "usage": {
            "prompt_tokens": finished.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": finished.prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": max(0, finished.cached_tokens - repeated)},
        },
    }
    response = {"status_code": 200, "request_id": f"req_{source_row}", "body": body}
    return _line(source_row, custom_id, response, None)


def error_line(*, source_row: int, custom_id: str, code: str, message: str) -> bytes:
    """The line of a request that failed for good, without the newline."""
    return _line(source_row, custom_id, None, {"code": code, "message": message})


def renamed(line: Mapping[str, Any], *, source_row: int) -> bytes:
    """A line of another results file as the line of ``source_row``."""
    return _dump({**line, "id": f"{_ID}{source_row}"})


def source_row(line: Mapping[str, Any]) -> int:
    """The row of the request file that a line of ours answers; -1 if it is not one of ours."""
    name = line.get("id")
    if not isinstance(name, str) or not name.startswith(_ID):
        return -1
    row = name[len(_ID) :]
    # A row of more digits is none of any file, and Python would refuse to read thousands of them.
    return int(row) if row.isascii() and row.isdecimal() and len(row) < 20 else -1


def _line(
    row: int, custom_id: str, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> bytes:
    return _dump(
        {"id": f"{_ID}{row}", "custom_id": custom_id, "response": response, "error": error}
    )


def _dump(line: Mapping[str, Any]) -> bytes:
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair can come out of a detokenizer; it has no UTF-8 form.
    return text.encode("utf-8", errors="replace")


def _chat_choice(index: int, choice: Choice) -> dict[str, Any]:
    logprobs = None
    if choice.logprobs is not None:
        logprobs = {"content": [_chat_logprob(entry) for entry in choice.logprobs]}
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.text},
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
        **_token_ids(choice),
    }


def _text_choice(index: int, choice: Choice) -> dict[str, Any]:
    logprobs = None
    if choice.logprobs is not None:
        logprobs = {
            "tokens": [_token(entry.token_id, entry.text) for entry in choice.logprobs],
            "token_logprobs": [entry.logprob for entry in choice.logprobs],
            "top_logprobs": [
                {_token(token_id, text): value for token_id, text, value in entry.top}
                for entry in choice.logprobs
            ],
        }
    return {
        "index": index,
        "text": choice.text or "",
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
        **_token_ids(choice),
    }


def _token_ids(choice: Choice) -> dict[str, Any]:
    """The generated token ids, where there is no tokenizer to make text of them."""
    return {"token_ids": choice.token_ids} if choice.text is None else {}


def _chat_logprob(entry: TokenLogprob) -> dict[str, Any]:
    return {
        "token": _token(entry.token_id, entry.text),
        "logprob": entry.logprob,
        "top_logprobs": [
            {"token": _token(token_id, text), "logprob": value}
            for token_id, text, value in entry.top
        ],
    }


def _token(token_id: int, text: str | None) -> str:
    return f"token_id:{token_id}" if text is None else text
