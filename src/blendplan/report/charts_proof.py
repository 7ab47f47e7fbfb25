"""The pictures of a proof: predictions against measurements, gains, KV cache, where time went.

Needs matplotlib; call `require_matplotlib` before this module is imported.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from blendplan.report.drawing import (
    COMPUTE,
    INK,
    MEMORY,
    MUTED,
    PLAIN,
    WIDTH,
    Chart,
    hint,
    house_style,
    new_figure,
    time_axis,
)
from blendplan.report.proof import shares, workloads
from blendplan.report.quantities import count, duration, gain

Values = Mapping[str, Any]
_BAND = 0.15
_KINDS = {"decode": MEMORY, "prefill": COMPUTE, "mixed": PLAIN, "between steps": INK}


def charts(values: Values) -> tuple[Chart, ...]:
    """All pictures for which there is anything to draw."""
    with house_style():
        found = [_makespans(values)] if values["runs"] else []
        for name, workload in workloads(values).items():
            found.append(_gains(name, workload))
            if courses := _courses(values, name):
                found.append(_kv_cache(name, courses))
            if split := _split(values, name):
                found.append(_time(name, split))
        return tuple(found)


def _makespans(values: Values) -> Chart:
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    points = [(run["measured_s"], run["predicted_s"], run) for run in values["runs"]]
    high_s = max(max(point[:2]) for point in points)
    low_s = min(min(point[:2]) for point in points)
    unit_s = time_axis(axes.xaxis, high_s)
    time_axis(axes.yaxis, high_s)
    line = np.array([0.8 * low_s, 1.2 * high_s]) / unit_s
    axes.fill_between(line, line * (1 - _BAND), line * (1 + _BAND), color=PLAIN, alpha=0.25)
    axes.plot(line, line, color=MUTED, linewidth=1)
    for lengths, colour in (("known", COMPUTE), ("sample", MEMORY)):
        chosen = [point for point in points if point[2]["lengths"] == lengths]
        for measured_s, predicted_s, run in chosen:
            (point,) = axes.plot(measured_s / unit_s, predicted_s / unit_s, "o", color=colour)
            hint(point, f"{run['workload']}, {run['order']}: {duration(measured_s)} measured")
        if chosen:
            axes.plot([], [], "o", color=colour, label=f"lengths: {lengths}")
    axes.set(xlim=line, ylim=line)
    axes.set_title("predicted")
    axes.set_xlabel("measured")
    axes.legend(loc="upper left")
    near = sum(abs(p / m - 1) <= _BAND for m, p, run in points if run["lengths"] == "known")
    known = sum(run["lengths"] == "known" for *_, run in points)
    return Chart(
        "makespans",
        "Predicted and measured makespans",
        "Each point is a run; in the grey band the prediction is within 15 % of the measurement.",
        f"{near} of {known} predicted makespans of known lengths are within 15 %",
        figure,
    )


def _gains(name: str, workload: Values) -> Chart:
    orders = {
        title: order["gain"]["input"]
        for title, order in workload["orders"].items()
        if "input" in order["gain"]
    }
    figure = new_figure(WIDTH, 0.9 + 0.42 * max(1, len(orders)))
    axes = figure.subplots()
    for place, (title, found) in enumerate(orders.items()):
        median = 100 * found["median"]
        around = [[median - 100 * found["least"]], [100 * found["most"] - median]]
        bar = axes.barh(place, median, height=0.55, color=COMPUTE)
        hint(bar[0], f"{title}: {gain(found['median'])} measured")
        axes.errorbar(median, place, xerr=np.clip(around, 0, None), color=INK, capsize=3)
        if found["predicted"] is not None:
            axes.plot(100 * found["predicted"], place, "D", color=MEMORY, markersize=5)
    axes.plot([], [], "D", color=MEMORY, label="predicted")
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(orders)), list(orders))
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:+g} %")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12))
    said = "; ".join(f"{title} {gain(found['median'])}" for title, found in orders.items())
    return Chart(
        f"gains-{name}",
        f"{name}: throughput gained over input order",
        "Bars are medians as measured, lines the least and the most of repeats side by side.",
        said,
        figure,
    )


def _courses(values: Values, workload: str) -> dict[str, Values]:
    """KV cache over time, planned and measured, of the first repeat of some orders."""
    return {
        run["order"]: run["course"]
        for run in values["runs"]
        if run["workload"] == workload and run["repeat"] == 1 and run.get("course")
    }


def _kv_cache(name: str, courses: Mapping[str, Values]) -> Chart:
    figure = new_figure(WIDTH, 1.9 * len(courses))
    rows = figure.subplots(len(courses), squeeze=False)[:, 0]
    for axes, (order, course) in zip(rows, courses.items(), strict=True):
        high_s = max(course["planned"]["end_s"][-1], course["measured"]["end_s"][-1])
        unit_s = time_axis(axes.xaxis, high_s)
        for word, colour, style in (("planned", MUTED, "--"), ("measured", COMPUTE, "-")):
            end_s = np.array(course[word]["end_s"]) / unit_s
            tokens = course[word]["kv_tokens"]
            axes.plot(end_s, tokens, color=colour, linestyle=style, linewidth=1, label=word)
        axes.set_title(f"{order}: KV tokens")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlim=(0, None), ylim=(0, None))
    rows[0].legend(loc="lower center", ncols=2)
    said = "; ".join(
        f"{order}: at most {count(max(course['measured']['kv_tokens']))} tokens measured, "
        f"{count(max(course['planned']['kv_tokens']))} planned"
        for order, course in courses.items()
    )
    return Chart(
        f"kv-{name}",
        f"{name}: KV cache in use over time",
        "As planned, and as the engine's own steps show it.",
        said,
        figure,
    )


def _split(values: Values, workload: str) -> dict[str, dict[str, float]]:
    """Seconds by kind of step, of the first repeat of each order."""
    found = {}
    for run in values["runs"]:
        if (run["workload"], run["repeat"]) == (workload, 1) and run["priced"]:
            seconds = shares(run["priced"])
            rest_s = max(0.0, run["measured_s"] - sum(seconds.values()))
            found[run["order"]] = seconds | {"between steps": rest_s}
    return found


def _time(name: str, split: Mapping[str, Mapping[str, float]]) -> Chart:
    figure = new_figure(WIDTH, 0.8 + 0.42 * len(split))
    axes = figure.subplots()
    unit_s = time_axis(axes.xaxis, max(sum(seconds.values()) for seconds in split.values()))
    for place, (order, seconds) in enumerate(split.items()):
        begin_s = 0.0
        for kind, colour in _KINDS.items():
            (bar,) = axes.barh(
                place, seconds[kind] / unit_s, left=begin_s / unit_s, height=0.6, color=colour
            )
            hint(bar, f"{order}, {kind}: {duration(seconds[kind])}")
            begin_s += seconds[kind]
    for kind, colour in _KINDS.items():
        axes.barh(0, 0, color=colour, label=kind)
    axes.set_yticks(range(len(split)), list(split))
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(_KINDS))
    said = "; ".join(
        f"{order}: " + ", ".join(f"{kind} {duration(s)}" for kind, s in seconds.items())
        for order, seconds in split.items()
    )
    return Chart(
        f"time-{name}",
        f"{name}: where the time went",
        "Steps that only decode, that only compute prompts, and that do both.",
        said,
        figure,
    )
