"""`charts`: the pictures of a quote: time against cost, and the run of the best over time.

Needs matplotlib; call `require_matplotlib` before this module is imported.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from blendplan.planning.quote import Quote
from blendplan.planning.quoting.offer import Offer
from blendplan.report.drawing import (
    COMPUTE,
    INK,
    MEMORY,
    PLAIN,
    WIDTH,
    Chart,
    hint,
    house_style,
    new_figure,
    time_axis,
)
from blendplan.report.quantities import duration, money, rounded
from blendplan.report.quoted import machine_name, quote_values


def charts(quote: Quote) -> tuple[Chart, ...]:
    """Time against cost, and where there is a best offer its run: time per step, and requests."""
    with house_style():
        front = _front(quote)
        if quote.winner is None:
            return (front,)
        best = quote.offers[quote.winner]
        name = machine_name(quote_values(quote)["offers"][quote.winner])
        return (front, _steps(best, name), _running(best, name))


def _front(quote: Quote) -> Chart:
    """Every offer as a point; those that nothing beats in time and cost are joined."""
    values = quote_values(quote)
    priced = bool(quote.prices)
    offers = [one for one in values["offers"] if not priced or one["cost"] is not None]
    figure = new_figure(WIDTH, 3.6)
    axes = figure.subplots()
    unit_s = time_axis(axes.xaxis, max(one["makespan_s"] for one in offers))
    in_units = axes.xaxis.get_major_formatter()

    def place(one: Mapping[str, Any]) -> tuple[float, float]:
        return one["makespan_s"] / unit_s, one["cost"] if priced else one["gpu_hours"]

    front = sorted((one for one in offers if one["on_front"]), key=lambda one: one["makespan_s"])
    axes.step(*zip(*map(place, front), strict=True), where="post", color=COMPUTE, linewidth=1.2)
    best = None if quote.winner is None else values["offers"][quote.winner]
    for one in offers:
        colour = MEMORY if one is best else COMPUTE if one["on_front"] else PLAIN
        x, y = place(one)
        (point,) = axes.plot(x, y, "o", color=colour, markersize=6 if one["on_front"] else 4)
        hint(point, f"{machine_name(one)}: {duration(one['makespan_s'])}, {_worth(values, one)}")
    for one in front:
        axes.annotate(machine_name(one), place(one), (5, 4), textcoords="offset points", fontsize=8)
    if quote.within_s is not None:
        axes.axvline(quote.within_s / unit_s, color=INK, linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log")
    axes.margins(0.12)
    for axis, written in ((axes.xaxis, in_units), (axes.yaxis, StrMethodFormatter("{x:g}"))):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(written)
        axis.set_minor_locator(NullLocator())
    axes.set_title(f"cost {quote.prices.currency}".strip() if priced else "GPU hours")
    said = "; ".join(
        f"{machine_name(one)} {duration(one['makespan_s'])}, {_worth(values, one)}" for one in front
    )
    return Chart(
        "front",
        "Time and cost" if priced else "Time and GPU hours",
        "Each point is a machine. Those on the line are beaten by no other in both; the orange one "
        "is the best. The dashed line is the time limit, where there is one.",
        f"On the front: {said}",
        figure,
    )


def _worth(values: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    if one["cost"] is None:
        return f"{rounded(one['gpu_hours'])} GPU hours"
    return money(one["cost"], values["currency"])


def _steps(best: Offer, name: str) -> Chart:
    """Compute and memory time per step over the run."""
    figure = new_figure(WIDTH, 2.6)
    axes = figure.subplots()
    edges = _time(axes, best)
    high_s = float(max(best.series["compute_s"].max(), best.series["memory_s"].max()))
    step_unit_s = time_axis(axes.yaxis, high_s, ticks=4)
    for values, colour, label in (
        (best.series["compute_s"], COMPUTE, "compute"),
        (best.series["memory_s"], MEMORY, "memory"),
    ):
        axes.stairs(values / step_unit_s, edges, color=colour, alpha=0.15, fill=True)
        axes.stairs(values / step_unit_s, edges, color=colour, linewidth=1.2, label=label)
    axes.set_ylim(0, 1.05 * high_s / step_unit_s or 1.0)
    figure.legend(loc="outside lower center", ncols=2)
    return Chart(
        "steps",
        f"Time per step on {name}",
        "Compute and memory time of a step over the run.",
        f"Compute and memory time per step; the run ends after {duration(best.makespan_s)}",
        figure,
    )


def _running(best: Offer, name: str) -> Chart:
    """KV cache and running requests over the run."""
    figure = new_figure(WIDTH, 2.6)
    axes = figure.subplots()
    edges = _time(axes, best)
    running = best.series["running"]
    most = float(running.max(initial=1.0))
    kv_share = best.series["kv_tokens"] / best.kv_tokens
    axes.stairs(100 * kv_share, edges, color=MEMORY, linewidth=1.2, label="KV cache in use, %")
    axes.stairs(
        100 * running / most,
        edges,
        color=COMPUTE,
        linewidth=1.2,
        label=f"running requests, % of {rounded(most)}",
    )
    axes.set_ylim(0, 105)
    figure.legend(loc="outside lower center", ncols=2)
    return Chart(
        "running",
        f"Requests and KV cache on {name}",
        "How full the KV cache is over the run, and how many requests run at once.",
        f"KV cache and running requests; at most {rounded(most)} run at once",
        figure,
    )


def _time(axes: Axes, best: Offer) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Edges of the points of a series on a time axis."""
    ends_s = best.series["end_s"]
    last_s = float(ends_s[-1]) if len(ends_s) else 1.0
    unit_s = time_axis(axes.xaxis, last_s, ticks=8)
    axes.set_xlim(0, last_s / unit_s)
    return np.concatenate(([0.0], ends_s)) / unit_s
