"""`screen`: which requests an engine's server would refuse, and what it makes of the others."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blendplan.engines.screening import sglang_rules, vllm_rules
from blendplan.engines.screening.bodies import COMPLETION, Body, body_of
from blendplan.engines.screening.judging import Judge
from blendplan.engines.screening.server import Server
from blendplan.requests.columns import Requests
from blendplan.requests.rejected import CONTEXT_LENGTH, Refusal

_SHOWN = 3
_ROWS_AT_ONCE = 1 << 14

_CAPS: Mapping[str, Callable[[Body], int | None]] = {
    "vllm": vllm_rules.output_cap,
    "sglang": sglang_rules.output_cap,
}
# SGLang refuses a prompt with its cap beyond the context; vLLM cuts the cap.
_CAP_MUST_FIT = ("sglang",)


@dataclass(frozen=True)
class Screened:
    """What the server of an engine makes of requests.

    Attributes:
        requests: all of them, with the caps on their outputs that the server sets.
        refusals: those that get no answer, in order.
        remarks: what to know of the others, a line each.
        checked_by: what judged.
    """

    requests: Requests
    refusals: list[Refusal]
    remarks: list[str]
    checked_by: str


def screen(
    requests: Requests,
    engine: str,
    server: Server,
    *,
    model: str = "",
    names: Sequence[str] = (),
    models: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Screened:
    """Judge all requests as the server of an engine does.

    Args:
        requests: n requests.
        engine: one of `blendplan.engines.screening.judging.ENGINES`.
        server: how the server will be started.
        model: folder or name of the model.
        names: names that the model is served under; with none, any.
        models: ask the engine's own request models where the engine is installed.
        progress: called now and then with how many are judged of how many.
    """
    caps = requests.max_tokens.copy()
    refusals: list[Refusal] = []
    unknown: Counter[str] = Counter()
    others: Counter[str] = Counter()
    uncapped = 0
    lengths, known = requests.prompt_tokens, requests.output_tokens >= 0
    with Judge(engine, server, model, models=models) as judge:
        for row, body in enumerate(_bodies(requests)):
            if progress is not None and row % _ROWS_AT_ONCE == 0:
                progress(row, len(requests))
            verdict = judge(body)
            if verdict.refuses:
                refusals.append(Refusal(row, verdict.message or "", verdict.code, verdict.status))
                continue
            unknown.update(judge.table.unknown(body))
            name = body.fields.get("model")
            if names and isinstance(name, str) and name and name not in names:
                others[name] += 1
            cap = _CAPS[engine](body)
            if cap is None or (known[row] and body.fields.get("max_tokens") is None):
                caps[row] = -1
            else:
                caps[row] = max(1, cap)
                uncapped += body.url == COMPLETION and body.fields.get("max_tokens") is None
            total = int(lengths[row]) + int(caps[row])
            if engine in _CAP_MUST_FIT and total > server.max_model_len > int(lengths[row]):
                refusals.append(_over(row, int(lengths[row]), int(caps[row]), server))
        title = judge.table.title
        remarks = [judge.remark] if judge.remark else []
        if unknown:
            remarks.append(_unknown(title, unknown, judge.table.renamed))
        if others:
            remarks.append(_names(title, others))
        if uncapped:
            what = "1 completion states" if uncapped == 1 else f"{uncapped:,} completions state"
            remarks.append(f"{what} no max_tokens: {title} stops after 16 tokens")
        return Screened(replace(requests, max_tokens=caps), refusals, remarks, judge.checked_by)


def counted(requests: Requests, refusals: Sequence[Refusal]) -> str:
    """Refusals counted by reason, with the first places and the first message of each."""
    by_code: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        by_code.setdefault(refusal.code, []).append(refusal)
    parts = []
    for found in sorted(by_code.values(), key=len, reverse=True):
        lines = [int(requests.source_row[refusal.row]) + 1 for refusal in found[:_SHOWN]]
        places = ", ".join(map(str, lines)) + (", ..." if len(found) > _SHOWN else "")
        word = "line" if len(found) == 1 else "lines"
        parts.append(f"{len(found):,} ({word} {places}): {found[0].message}")
    return "; ".join(parts)


def _bodies(requests: Requests) -> Iterator[Body]:
    """The body of every request as the server gets it."""
    with_ids = not requests.estimated_tokens
    if requests.bodies is None:
        bare = body_of({}, has_token_ids=True)
        yield from (bare for _ in range(len(requests)))
        return
    for start in range(0, len(requests), _ROWS_AT_ONCE):
        for raw in requests.bodies.slice(start, _ROWS_AT_ONCE).to_pylist():
            line: Any = {} if raw is None else json.loads(raw)
            yield body_of(line, has_token_ids=with_ids)


def _over(row: int, prompt: int, cap: int, server: Server) -> Refusal:
    message = (
        f"prompt of {prompt:,} tokens and max_tokens {cap:,} together are more than the context of "
        f"{server.max_model_len:,}"
    )
    return Refusal(row, message, CONTEXT_LENGTH)


def _unknown(title: str, found: Mapping[str, int], renamed: Mapping[str, str]) -> str:
    """One line on fields that the server passes over."""
    named = sorted(found.items(), key=lambda item: -item[1])
    listed = [f"{name!r} ({number:,})" for name, number in named[:8]]
    if len(named) > 8:
        listed.append(f"{len(named) - 8} more")
    are = "is no parameter" if len(named) == 1 else "are no parameters"
    hints = [f"{name!r} is {renamed[name]!r} there" for name, _ in named if name in renamed]
    hint = f"; {', '.join(hints)}" if hints else ""
    return f"{', '.join(listed)} {are} of {title}: passed on, ignored there{hint}"


def _names(title: str, found: Mapping[str, int]) -> str:
    """One line on models that requests ask for by other names than the plan's model has."""
    named = sorted(found.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name!r} ({number:,})" for name, number in named[:_SHOWN])
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return (
        f"requests ask for the model {listed}{more}: {title} must serve it by that name "
        f"(--engine-arg served_model_name=NAME, or an adapter of that name)"
    )
