"""What a proof found, for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from blendplan.report.quantities import count, duration, gain, share
from blendplan.report.tables import Column, Columns

Values = Mapping[str, Any]
_MOST_SHOWN = 10

ORDER_HEADS = ("order", "tokens a step", "measured", "predicted", "gain over input", "preemptions")


def proof(values: Values) -> Group:
    """Contradictions first, then each part.

    Args:
        values: of a ``proof.json``, with ``folder`` and, where it was written, ``page``.
    """
    parts: list[RenderableType] = [title(values), "", *_contradictions(values), ""]
    for name, workload in workloads(values).items():
        heads = [Column(ORDER_HEADS[0], text=True), *map(Column, ORDER_HEADS[1:])]
        parts += [f"{name}: {count(workload['requests'])} requests, measured"]
        parts += [Columns(heads, list(order_rows(workload))), ""]
    parts.append(agreement_line(values))
    parts += [f"{name}: {part['state']}, {part['why']}" for name, part in missing(values).items()]
    where = values.get("page") or values["folder"]
    return Group(*parts, f"wrote {where}")


def title(values: Values) -> str:
    """What was measured, on what and when."""
    identity, machine = values["identity"], values["machine"]
    place = identity["gpu"] or machine["cpu"]
    return f"{identity['model']} on {place}, {engine_name(values)}, {machine['date']}"


def engine_name(values: Values) -> str:
    """The engine, with its version where it has run."""
    runs = values["runs"]
    return str(runs[0]["engine"]) if runs else str(values["identity"]["engine"])


def workloads(values: Values) -> dict[str, Any]:
    """What the part ``runs`` found by workload, as far as it has come."""
    part = values["parts"].get("runs", {})
    return dict(part.get("values", {}).get("workloads", {}))


def order_rows(workload: Values) -> Iterator[tuple[str, ...]]:
    """A row of `ORDER_HEADS` for each order."""
    for name, order in workload["orders"].items():
        yield (
            name + (", stock engine" if order["stock"] else ""),
            count(order["batched_tokens"]),
            spread([duration(second) for second in _ends(order["measured_s"])]),
            duration(order["predicted_s"]),
            gain_words(order["gain"].get("input")),
            count(order["preemptions"]),
        )


def gain_words(found: Values | None) -> str:
    """A gain with its spread, where there is one: ``+12.3 % (+10.1 to +13.0 %)``."""
    if found is None:
        return ""
    if found["least"] == found["most"]:
        return gain(found["median"])
    return f"{gain(found['median'])} ({100 * found['least']:+.1f} to {gain(found['most'])})"


def spread(ends: Sequence[str]) -> str:
    """From the least to the most, once where they are the same."""
    return " to ".join(dict.fromkeys(ends))


def agreement_line(values: Values) -> str:
    """How many predictions were near enough."""
    found = values["agreement"]
    if not found["runs"]:
        return "no run to compare with its plan"
    return (
        f"{found['within']} of {found['runs']} predicted makespans are within 15 % of the "
        "measured one (known lengths)"
    )


def missing(values: Values) -> dict[str, Values]:
    """Parts that are not measured."""
    return {name: part for name, part in values["parts"].items() if part["state"] != "done"}


def contradiction_rows(values: Values) -> list[tuple[str, str, str]]:
    """What, expected, measured."""
    return [
        (one["what"], _figure(one, "expected"), _figure(one, "measured"))
        for one in values["contradictions"]
    ]


def _contradictions(values: Values) -> list[RenderableType]:
    rows = contradiction_rows(values)
    if not rows:
        return ["nothing that was measured contradicts the model"]
    columns = [Column("contradicts the model", text=True), Column("expected"), Column("measured")]
    more = [f"and {len(rows) - _MOST_SHOWN} more"] if len(rows) > _MOST_SHOWN else []
    return [Columns(columns, rows[:_MOST_SHOWN]), *more]


def _figure(one: Values, word: str) -> str:
    words = {"s": duration, "count": count, "share": share, "gain": gain}
    return "a gain" if one[word] is None else words[one["unit"]](one[word])


def _ends(seconds: Sequence[float]) -> tuple[float, float]:
    return min(seconds), max(seconds)


def shares(priced: Values) -> dict[str, float]:
    """Seconds of a run by kind of step."""
    return {name: kind["measured_s"] for name, kind in priced["kinds"].items()}


def percent(value: float | None) -> str:
    """A share, or nothing."""
    return "" if value is None else share(value)
