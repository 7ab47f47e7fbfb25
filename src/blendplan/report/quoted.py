"""A quote as values and as tables; the numbers are those of ``--json``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType

from blendplan.hardware.gpu import GpuSpec
from blendplan.planning.quote import Quote
from blendplan.planning.quoting.listed import LISTED
from blendplan.planning.quoting.offer import Offer
from blendplan.report.quantities import (
    count,
    duration,
    money,
    probability,
    rounded,
    share,
    short_duration,
)
from blendplan.report.tables import Column, Columns

# Settings that have a column of their own where there are several; the others always have one.
_SETTINGS = {
    "model": "model",
    "max_num_batched_tokens": "tokens a step",
    "max_num_seqs": "requests at once",
    "kv_dtype": "KV cache",
}
_MOST_UNFIT = 12


def quote_values(quote: Quote) -> dict[str, Any]:
    """The quote as JSON values."""
    return {
        "prices": dict(quote.prices.per_gpu_hour),
        "currency": quote.prices.currency,
        "within_s": quote.within_s,
        "chance": quote.chance,
        "offers": [
            offer_values(quote, offer) | {"on_front": index in quote.front}
            for index, offer in enumerate(quote.offers)
        ],
        "winner": quote.winner,
        "unfit": [
            _settings(one.settings) | {"reason": one.reason, "missing_bytes": one.missing_bytes}
            for one in quote.unfit
        ],
    }


def offer_values(quote: Quote, offer: Offer) -> dict[str, Any]:
    """One offer as JSON values."""
    cost = quote.cost(offer)
    within_s = quote.within_s
    return _settings(offer.settings) | {
        "gpu": offer.gpu,
        "gpus": offer.gpus,
        "makespan_s": offer.makespan_s,
        "makespan_quantiles_s": offer.outlook.as_metadata(),
        "chance": None if within_s is None else offer.outlook.chance(within_s),
        "in_time": quote.in_time(offer),
        "gpu_hours": offer.gpu_hours,
        "cost": cost,
        "cost_per_million_tokens": None if cost is None else _per_million(offer, cost),
        "throughput_tokens_per_s": offer.throughput_tokens_per_s,
        "bound_s": offer.bound_s,
        "bound_ratio": offer.bound_ratio,
        "limit": offer.shares.limit,
        "time_shares": asdict(offer.shares),
        "turnaround_s": dict(offer.turnaround_s),
        "tail_s": offer.tail_s,
        "prompt_tokens": offer.prompt_tokens,
        "output_tokens": offer.output_tokens,
        "kv_tokens": offer.kv_tokens,
        "preemptions": offer.preemptions,
        "whole": offer.whole,
        "simulated_requests": offer.simulated,
    }


def quote_picture(quote: Mapping[str, Any]) -> Group:
    """Tables of what fits and of the front, what does not fit, and what it comes to.

    Args:
        quote: keys as in ``blendplan quote --json``.
    """
    offers = quote["offers"]
    parts: list[RenderableType] = [_table(quote), "", *_sentences(quote), ""]
    parts += [_turnarounds([one for one in offers if one["on_front"]], offers)]
    if quote["unfit"]:
        parts += ["", "What does not fit:", *(f"  {line}" for line in unfit_lines(quote["unfit"]))]
    if quote["winner"] is not None:
        parts += ["", "The plan of the best:"]
    return Group(*parts)


def machine_name(offer: Mapping[str, Any]) -> str:
    """GPUs of an offer in words: ``4 x h100-80g``, ``2 x 4 x h100-80g`` for two replicas."""
    replicas = f"{offer['replicas']} x " if offer["replicas"] > 1 else ""
    return f"{replicas}{offer['tp']} x {offer['gpu']}"


def varied(offers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Settings that differ between offers, with their names in words."""
    return {
        name: words
        for name, words in _SETTINGS.items()
        if len({str(one[name]) for one in offers}) > 1
    }


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with specifications by their names."""
    return {name: _name(settings[name]) for name in LISTED}


def _name(value: Any) -> Any:
    if isinstance(value, str | int):
        return value
    return value.name if hasattr(value, "layers") or isinstance(value, GpuSpec) else str(value)


def _per_million(offer: Offer, cost: float) -> dict[str, float]:
    """Cost of a million tokens: of all, and of prompts and outputs by the time that each take."""
    million = 1e-6
    prompts = offer.shares.prompts
    return {
        "all": cost / (million * (offer.prompt_tokens + offer.output_tokens)),
        "in": cost * prompts / (million * max(1, offer.prompt_tokens)),
        "out": cost * (1.0 - prompts) / (million * max(1, offer.output_tokens)),
    }


def _table(quote: Mapping[str, Any]) -> Columns:
    offers = quote["offers"]
    unsure = _unsure(offers)
    priced, limited = bool(quote["prices"]), quote["within_s"] is not None
    settings = varied(offers)
    columns = [
        Column("machine", text=True),
        *(Column(words) for words in settings.values()),
        Column("GPUs"),
        Column("makespan"),
        *([Column("50 %", "50 %", spare=4), Column("90 %", "90 %")] if unsure else []),
        *([Column("in time")] if limited else []),
        Column("GPU hours", spare=1 if priced else 0),
        *([Column("cost"), *_per_million_columns()] if priced else []),
        Column("tokens/s", spare=3),
        Column("of the bound", "of the\nbound", spare=2),
        Column("limited by", text=True),
    ]
    rows = [
        (
            f"{'*' if one['on_front'] else ' '} {machine_name(one)}",
            *(str(one[name]) for name in settings),
            count(one["gpus"]),
            ("" if one["whole"] else "~") + short_duration(one["makespan_s"]),
            *(map(short_duration, _quantiles(one)) if unsure else ()),
            *((probability(one["chance"]),) if limited else ()),
            rounded(one["gpu_hours"]),
            *(offer_costs(one) if priced else ()),
            rounded(one["throughput_tokens_per_s"]),
            share(one["bound_ratio"]),
            one["limit"],
        )
        for one in offers
    ]
    return Columns(columns, rows)


def _per_million_columns() -> list[Column]:
    return [Column(f"a million {what}", f"million\n{what}") for what in ("in", "out")]


def _quantiles(offer: Mapping[str, Any]) -> tuple[float, float]:
    """Makespan by which the run ends half of the time, and nine times in ten."""
    quantiles = offer["makespan_quantiles_s"]
    return quantiles["p50"], quantiles["p90"]


def _unsure(offers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether output lengths leave the makespan to chance."""
    return any(half != most for half, most in map(_quantiles, offers))


def offer_costs(offer: Mapping[str, Any]) -> tuple[str, str, str]:
    """What it costs, and a million tokens in and out; empty without a price."""
    if offer["cost"] is None:
        return ("", "", "")
    each = offer["cost_per_million_tokens"]
    return (money(offer["cost"]), money(each["in"]), money(each["out"]))


def _turnarounds(
    front: Sequence[Mapping[str, Any]], offers: Sequence[Mapping[str, Any]]
) -> Columns:
    """When requests are done on the machines of the front, and where the time goes."""
    settings = varied(offers)
    columns = [
        Column("on the front", text=True),
        *(Column(words) for words in settings.values()),
        *map(Column, ("P50 done", "P95", "P99", "tail")),
        *(Column(words, spare=1) for words in ("compute", "bandwidth", "small steps")),
        Column("KV cache used", "KV cache\nused", spare=2),
        Column("preemptions", narrow="preemp-\ntions", spare=3),
    ]
    rows = [
        (
            machine_name(one),
            *(str(one[name]) for name in settings),
            *(short_duration(one["turnaround_s"][name]) for name in ("p50", "p95", "p99")),
            short_duration(one["tail_s"]),
            *(share(one["time_shares"][name]) for name in ("compute", "bandwidth", "small_steps")),
            share(one["time_shares"]["kv_cache"]),
            count(one["preemptions"]),
        )
        for one in front
    ]
    return Columns(columns, rows)


def _sentences(quote: Mapping[str, Any]) -> list[str]:
    what = "cheaper" if quote["prices"] else "of fewer GPU hours"
    said = [f"* on the front: no other is both faster and {what}. Machines: replicas x tp x GPU."]
    if any(not one["whole"] for one in quote["offers"]):
        said.append("~ estimated from a part of the requests.")
    return [*said, verdict(quote)]


def verdict(quote: Mapping[str, Any]) -> str:
    """What the quote comes to, in a sentence; keys as in ``blendplan quote --json``."""
    offers, winner = quote["offers"], quote["winner"]
    if winner is None:
        near = max(offers, key=lambda one: (one["chance"], -one["makespan_s"]))
        line = f"None is done{_limit(quote)}; the nearest is {machine_name(near)}"
        line += f", {duration(near['makespan_s'])}"
        if _unsure(offers):
            line += f", in time with a probability of {probability(near['chance'])}"
        return f"{line}."
    one = offers[winner]
    cost = "" if one["cost"] is None else f", {money(one['cost'], quote['currency'])}"
    best = "fastest"
    if quote["prices"] or quote["within_s"] is not None:
        best = "cheapest" if quote["prices"] else "one of fewest GPU hours"
    line = f"The {best}{_limit(quote)}: {machine_name(one)}, {duration(one['makespan_s'])}{cost}"
    half, most = _quantiles(one)
    if half != most:
        line += (
            f"; {duration(half)} or less half of the time, {duration(most)} or less nine times in "
            "ten"
        )
        if one["chance"] is not None:
            line += f"; in time with a probability of {probability(one['chance'])}"
    return f"{line}."


def _limit(quote: Mapping[str, Any]) -> str:
    if quote["within_s"] is None:
        return ""
    line = f" within {duration(quote['within_s'])}"
    if _unsure(quote["offers"]):
        line += f" with a probability of at least {probability(quote['chance'])}"
    return line


def unfit_lines(unfit: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of combinations that do not fit; replicas make no difference to that."""
    settings = varied(unfit)
    lines: dict[str, None] = {}
    for one in unfit:
        others = "".join(f", {words} {one[name]}" for name, words in settings.items())
        lines[f"{one['tp']} x {one['gpu']}{others}: {one['reason']}"] = None
    shown = list(lines)[:_MOST_UNFIT]
    left = len(lines) - len(shown)
    return shown if not left else [*shown, f"and {left} more (--json lists all)"]
