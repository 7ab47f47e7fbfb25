"""`job_page`: what a finished job was, as one HTML page."""

from collections.abc import Mapping
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.report.drawing import (
    COMPUTE,
    MUTED,
    WIDTH,
    Chart,
    house_style,
    new_figure,
    time_axis,
)
from blendplan.report.page import facts_grid, page, picture, table, write_page
from blendplan.report.quantities import cost, count, duration, learned, rounded, share

Values = Mapping[str, Any]


def write_job_page(values: Values, finish_s: NDArray[np.float64], path: Path) -> None:
    """Write the page of a job, whole or not at all.

    Args:
        values: of a `JobSummary`.
        finish_s: when the plan has each sequence finish; float64 [n].
        path: of the page.

    Raises:
        BlendplanError: matplotlib is not installed, or the path cannot be written.
    """
    write_page(lambda: job_page(values, finish_s), path)


def job_page(values: Values, finish_s: NDArray[np.float64]) -> str:
    """The page of a job as one HTML document. Args: as above."""
    title = f"{values['results']}: {count(values['answered'])} answers"
    if values["failed"]:
        title += f", {count(values['failed'])} errors"
    gpus = values["gpu"] if values["tp"] == 1 else f"{values['tp']} x {values['gpu']}"
    parts = [
        f'<h1>{escape(title)}</h1><p class="muted">{escape(values["model"])} on {escape(gpus)}, '
        f"{escape(values['engine'])}, policy {escape(values['policy'])}, "
        f"{'simulated' if values['simulated'] else 'measured'}</p>{facts_grid(_facts(values))}",
        f'<section class="pair">{picture(_course(values, finish_s))}'
        f"<div><h2>Planned and {_happened(values)}</h2>{_comparison(values)}</div></section>",
    ]
    if values["errors"]:
        errors = [(code, count(number)) for code, number in values["errors"].items()]
        parts.append(f"<section><h2>Errors</h2>{table(('code', 'requests'), errors)}</section>")
    if len(values["sessions"]) > 1:
        parts.append(f"<section><h2>Sessions</h2>{_sessions(values)}</section>")
    notes = [values["lengths"]["note"], *map(_learned, values["sessions"])]
    parts += [f'<p class="muted">{escape(note)}</p>' for note in notes if note]
    return page(str(values["results"]), parts)


def _facts(values: Values) -> dict[str, str]:
    measured = values["measured"]
    facts = {
        "requests": count(values["requests"]),
        "time": duration(measured["makespan_s"]),
        "tokens/s": rounded(measured["throughput_tokens_per_s"]),
        "GPU hours": rounded(values["gpu_hours"]),
    }
    return facts if values["cost"] is None else facts | {"cost": cost(values)}


def _happened(values: Values) -> str:
    return "simulated" if values["simulated"] else "measured"


def _comparison(values: Values) -> str:
    measured, planned = values["measured"], values["predicted"]
    forms = {
        "makespan_s": ("makespan", duration),
        "throughput_tokens_per_s": ("tokens/s", rounded),
        "prompt_tokens": ("prompt tokens", rounded),
        "output_tokens": ("output tokens", rounded),
        "prefix_sharing": ("prefix sharing", share),
    }
    rows = [
        (title, words(planned[name]), words(measured[name]), _ratio(measured[name], planned[name]))
        for name, (title, words) in forms.items()
    ]
    rows.append(("preemptions", "", count(measured["preemptions"]), ""))
    if measured["restarts"]:
        rows.append(("engine deaths", "", count(measured["restarts"]), ""))
    return table(("", "planned", _happened(values), "ratio"), rows)


def _ratio(measured: float, planned: float) -> str:
    return f"{measured / planned:.2f}" if planned else ""


def _sessions(values: Values) -> str:
    rows = [
        (
            str(number),
            duration(one["makespan_s"]),
            count(one["finished"]),
            count(one["failed"]),
            rounded(one["output_tokens"]),
            share(one["prefix_sharing"]),
        )
        for number, one in enumerate(values["sessions"], start=1)
    ]
    heads = ("session", "time", "finished", "failed", "output tokens", "prefix sharing")
    return table(heads, rows)


def _learned(session: Values) -> str:
    return f"lengths learned {learned(session['replan'])}" if session["replan"] else ""


def _course(values: Values, finish_s: NDArray[np.float64]) -> Chart:
    """Finished requests over time, planned and as it was."""
    sessions = [one["progress"] for one in values["sessions"]]
    begins = [0.0, *accumulate(one["makespan_s"] for one in values["sessions"])]
    before = [0, *accumulate(one["done"][-1] if one["done"] else 0 for one in sessions)]
    moments = [0.0]
    done = [0]
    for begin, offset, one in zip(begins, before, sessions, strict=False):
        moments += [begin + second for second in one["end_s"]]
        done += [offset + number for number in one["done"]]
    planned_s = np.quantile(finish_s, np.linspace(0, 1, 201)) if len(finish_s) else np.zeros(1)
    planned = np.linspace(0, values["requests"], len(planned_s))
    with house_style():
        figure = new_figure(WIDTH, 2.8)
        axes = figure.subplots()
        unit_s = time_axis(axes.xaxis, max(moments[-1], float(planned_s[-1])), ticks=8)
        axes.plot(planned_s / unit_s, planned, color=MUTED, linestyle="--", label="planned")
        axes.plot(np.array(moments) / unit_s, done, color=COMPUTE, label=_happened(values))
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="upper left")
    return Chart(
        "course",
        "Finished requests over time",
        "Sessions one after another, without the time between them.",
        f"{count(done[-1])} requests finished in {duration(moments[-1])}; planned were "
        f"{count(values['requests'])} in {duration(float(planned_s[-1]))}",
        figure,
    )
