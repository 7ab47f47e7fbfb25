"""`write_quote_html`: a quote as one HTML file: the front, the run of the best, all numbers."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from blendplan.planning.quote import Quote
from blendplan.report.drawing import require_matplotlib
from blendplan.report.page import facts_grid, page, picture, table
from blendplan.report.quantities import (
    count,
    duration,
    money,
    probability,
    rounded,
    share,
    short_duration,
)
from blendplan.report.quoted import (
    machine_name,
    offer_costs,
    quote_values,
    unfit_lines,
    varied,
    verdict,
)
from blendplan.whole_file import replacing


def write_quote_html(quote: Quote, path: Path, title: str, command: str | None) -> None:
    """Write the report, whole or not at all.

    Args:
        quote: to report.
        path: of the file.
        title: what was quoted, such as the name of the request file.
        command: that makes the plan of the best; None where there is none.

    Raises:
        BlendplanError: matplotlib is not installed, or the path cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(quote_html(quote, title, command), encoding="utf-8")


def quote_html(quote: Quote, title: str, command: str | None) -> str:
    """The report as one HTML document. Args: as above."""
    values = quote_values(quote)
    parts = [_heading(values, title, command), *_pictures(quote), _numbers(values)]
    if values["unfit"]:
        lines = "".join(f"<p>{escape(line)}</p>" for line in unfit_lines(values["unfit"]))
        parts.append(f"<section><h2>What does not fit</h2>{lines}</section>")
    parts += [f'<p class="muted">{escape(note)}</p>' for note in quote.notes]
    return page(title, parts)


def _heading(values: Mapping[str, Any], title: str, command: str | None) -> str:
    best = None if values["winner"] is None else values["offers"][values["winner"]]
    shown = [("combinations that fit", count(len(values["offers"])))]
    if best is not None:
        shown += [
            ("makespan", duration(best["makespan_s"])),
            ("nine times in ten", duration(best["makespan_quantiles_s"]["p90"])),
            ("GPU hours", rounded(best["gpu_hours"])),
            ("tokens/s", rounded(best["throughput_tokens_per_s"])),
            ("of the lower bound", share(best["bound_ratio"])),
        ]
        if best["cost"] is not None:
            shown.insert(1, ("cost", money(best["cost"], values["currency"])))
    line = f"<pre>{escape(command)}</pre>" if command else ""
    title = f'<h1>{escape(verdict(values))}</h1><p class="muted">{escape(title)}</p>'
    return f"{title}{line}{facts_grid(dict(shown))}"


def _pictures(quote: Quote) -> list[str]:
    require_matplotlib()
    from blendplan.report.charts_quote import charts

    front, *others = [picture(chart) for chart in charts(quote)]
    found = [f"<section>{front}</section>"]
    if others:
        found.append(f'<section class="pair">{"".join(others)}</section>')
    return found


def _numbers(values: Mapping[str, Any]) -> str:
    offers, priced = values["offers"], bool(values["prices"])
    settings = varied(offers)
    limited = values["within_s"] is not None
    heads = [
        *("machine", *settings.values(), "GPUs", "makespan", "50 %", "90 %"),
        *(("in time",) if limited else ()),
        *("GPU hours", *(("cost", "a million in", "a million out") if priced else ())),
        *("tokens/s", "of the bound", "limited by", "P50 done", "P95", "P99", "tail"),
    ]
    rows = [_cells(one, settings, limited, priced) for one in offers]
    return f"<section><h2>Numbers</h2>{table(heads, rows, values['winner'])}</section>"


def _cells(
    one: Mapping[str, Any], settings: Mapping[str, str], limited: bool, priced: bool
) -> list[str]:
    return [
        f"{machine_name(one)}{' *' if one['on_front'] else ''}",
        *(str(one[name]) for name in settings),
        count(one["gpus"]),
        ("" if one["whole"] else "about ") + short_duration(one["makespan_s"]),
        *(short_duration(one["makespan_quantiles_s"][name]) for name in ("p50", "p90")),
        *((probability(one["chance"]),) if limited else ()),
        rounded(one["gpu_hours"]),
        *(offer_costs(one) if priced else ()),
        rounded(one["throughput_tokens_per_s"]),
        share(one["bound_ratio"]),
        one["limit"],
        *(short_duration(one["turnaround_s"][name]) for name in ("p50", "p95", "p99")),
        short_duration(one["tail_s"]),
    ]
