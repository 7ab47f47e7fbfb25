"""`proof_page`: a proof as one HTML page."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from blendplan.report.page import facts_grid, page, picture, table, write_page
from blendplan.report.proof import (
    ORDER_HEADS,
    agreement_line,
    contradiction_rows,
    engine_name,
    missing,
    order_rows,
    percent,
    title,
    workloads,
)
from blendplan.report.quantities import count, duration

Values = Mapping[str, Any]


def write_proof_page(values: Values, path: Path) -> None:
    """Write the page of a proof, whole or not at all.

    Args:
        values: of a ``proof.json``.
        path: of the page.

    Raises:
        BlendplanError: matplotlib is not installed, or the path cannot be written.
    """
    write_page(lambda: proof_page(values), path)


def proof_page(values: Values) -> str:
    """The page as one HTML document: what contradicts the model comes first."""
    from blendplan.report.charts_proof import charts

    parts = [f"<h1>{escape(title(values))}</h1>", facts_grid(_facts(values))]
    parts.append(_section("What contradicts the model", _contradictions(values)))
    pictures = [picture(chart) for chart in charts(values)]
    if pictures:
        parts.append(f'<section class="pair">{"".join(pictures)}</section>')
    for name, workload in workloads(values).items():
        head = f"{name}: {count(workload['requests'])} requests, measured"
        parts.append(_section(head, table(ORDER_HEADS, list(order_rows(workload)))))
    done = {name: part["values"] for name, part in values["parts"].items() if "values" in part}
    for name, rows_of in _TABLES.items():
        if name in done:
            parts += [_section(head, body) for head, body in rows_of(done[name])]
    if left := missing(values):
        lines = (f"{name}, {part['state']}: {part['why']}" for name, part in left.items())
        parts.append(_section("Not measured", "".join(f"<p>{escape(line)}</p>" for line in lines)))
    return page("proof", parts)


def _section(head: str, body: str) -> str:
    return f"<section><h2>{escape(head)}</h2>{body}</section>"


def _facts(values: Values) -> dict[str, str]:
    machine, agreed = values["machine"], values["agreement"]
    facts = {
        "within 15 %": f"{agreed['within']} of {agreed['runs']}",
        "engine": engine_name(values),
        "blendplan": machine["versions"]["blendplan"],
        "processor": f"{machine['cores']} cores, {machine['cpu']}",
    }
    driver = machine["gpu_driver"].get("driver")
    return facts | ({"driver": str(driver)} if driver else {})


def _contradictions(values: Values) -> str:
    rows = contradiction_rows(values)
    body = table(("", "expected", "measured"), rows) if rows else "<p>Nothing.</p>"
    return f"{body}<p>{escape(agreement_line(values))}</p>"


def _steps(found: Values) -> list[tuple[str, str]]:
    heads = ("steps of", "number", "share of the time", "off in sum", "off in the median")
    parts = []
    for word, name in (("held_out", "fitted to another run"), ("catalogue", "as shipped")):
        if found[word] is not None:
            rows = [
                (
                    kind,
                    count(figures["steps"]),
                    percent(figures["time_share"]),
                    percent(figures["total_error"]),
                    percent(figures["median_error"]),
                )
                for kind, figures in found[word]["kinds"].items()
            ]
            parts.append((f"Prices of steps, {name}", table(heads, rows)))
    between = found["between"]
    words = f"<p>{percent(between['share'])} of the time passes between steps.</p>"
    return [*parts, ("Between steps", words)]


def _kernels(found: Values) -> list[tuple[str, str]]:
    heads = ("kernel", "dtype", "rows", "error of the fit", "error of the shipped prices")
    rows = [
        (
            f"{fit['operator']} {fit['kernel']}",
            fit["dtype"],
            count(fit["rows"]),
            percent(fit["error_share"]),
            percent(fit["shipped_error_share"]),
        )
        for fit in found["fits"]
    ]
    parts = [("Kernels", table(heads, rows))]
    overlap = found["overlap"]
    if overlap is not None:
        ways = [
            (way, f"{fit['q']:.2f}", f"{fit['q_p5']:.2f} to {fit['q_p95']:.2f}", str(fit["cases"]))
            for way, fit in overlap["exponent"].items()
        ]
        body = table(("way of sharing", "q", "90 % of resamplings", "cases"), ways)
        parts.append(("Overlap of GEMM and decode attention", body))
    return parts


def _overlap(found: Values) -> list[tuple[str, str]]:
    beside = found["side_by_side"]
    rows = [(f"{kind} alone", duration(second)) for kind, second in beside["alone_s"].items()]
    rows += [
        ("both, side by side", duration(beside["together_s"])),
        ("both, one engine that blends them", duration(beside["one_engine_s"])),
        ("q", "below 0.7" if beside["q"] is None else f"{beside['q']:.2f}"),
    ]
    parts = [("Two engines side by side", table(("", "measured"), rows))]
    if found["pdmux"] is not None:
        times = [(word, duration(found["pdmux"][f"{word}_s"])) for word in ("off", "on")]
        parts.append(("Prefill beside decoding (pdmux)", table(("pdmux", "measured"), times)))
    return parts


def _graphs(found: Values) -> list[tuple[str, str]]:
    heads = ("captured size", "fits", "one more", "padding", "without graphs", "launches")
    rows: Sequence[tuple[str, ...]] = [
        (
            count(one["size"]),
            duration(one["fits_s"]),
            duration(one["padded_s"]),
            percent(one["padding_share"]),
            duration(one["eager_s"]),
            percent(one["launch_share"]),
        )
        for one in found["sizes"]
    ]
    return [("A step that decodes, with and without CUDA graphs", table(heads, rows))]


_TABLES = {"steps": _steps, "kernels": _kernels, "overlap": _overlap, "graphs": _graphs}
