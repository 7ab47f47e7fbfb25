"""From what SGLang answers to what the replay loop takes."""

from typing import Any

from blendplan.engines.protocol import Choice, Finished, Refused, TokenLogprob
from blendplan.engines.words import UnsupportedParameterError


def outcome_of(row: int, answer: Any, *, has_text: bool) -> Finished | Refused:
    """What became of a request.

    Args:
        row: row of the request.
        answer: what `async_generate` returned, one dictionary or one per choice, or raised.
        has_text: whether the engine has a tokenizer.
    """
    if isinstance(answer, Exception):
        return _refused(row, answer)
    answers = answer if isinstance(answer, list) else [answer]
    metas = [one["meta_info"] for one in answers]
    for meta in metas:
        reason = meta["finish_reason"]
        if reason["type"] == "abort":
            permanent = reason.get("status_code") == 400
            message = " ".join(str(reason.get("message", "aborted")).split())
            return Refused(row, _code(permanent), message, retry=not permanent)
    return Finished(
        row=row,
        choices=[_choice(one, has_text) for one in answers],
        prompt_tokens=metas[0]["prompt_tokens"],
        cached_tokens=sum(meta["cached_tokens"] for meta in metas),
        completion_tokens=sum(meta["completion_tokens"] for meta in metas),
        preemptions=sum(meta.get("num_retractions") or 0 for meta in metas),
    )


def _refused(row: int, error: Exception) -> Refused:
    message = " ".join(str(error).split())
    if isinstance(error, UnsupportedParameterError):
        return Refused(row, "unsupported_parameter", message, retry=False)
    permanent = isinstance(error, ValueError | TypeError)
    return Refused(row, _code(permanent), message, retry=not permanent)


def _code(permanent: bool) -> str:
    return "invalid_request" if permanent else "engine_error"


def _choice(answer: dict[str, Any], has_text: bool) -> Choice:
    meta = answer["meta_info"]
    return Choice(
        token_ids=list(answer.get("output_ids") or ()),
        text=answer["text"] if has_text else None,
        finish_reason=meta["finish_reason"]["type"],
        logprobs=_logprobs(meta),
    )


def _logprobs(meta: dict[str, Any]) -> list[TokenLogprob] | None:
    """SGLang's (log probability, token id, text) of each place and of the likeliest tokens."""
    chosen = meta.get("output_token_logprobs")
    if not chosen:
        return None
    tops = meta.get("output_top_logprobs") or [()] * len(chosen)
    return [
        TokenLogprob(token, text, value, [(other, word, worth) for worth, other, word in top or ()])
        for (value, token, text), top in zip(chosen, tops, strict=True)
    ]
