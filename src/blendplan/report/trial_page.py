"""`trial_page`: what a trial found, as one HTML page with pictures."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
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
    house_style,
    new_figure,
    time_axis,
)
from blendplan.report.page import facts_grid, page, picture, table, write_page
from blendplan.report.quantities import count, duration, gain, rounded, share
from blendplan.report.trial import answer, comparison, prices, sentences, whole

Values = Mapping[str, Any]

_COLOURS = {"input": PLAIN, "planned": COMPUTE}
_WORDS = {"input": "input order", "planned": "as planned"}
_KINDS = (("decode only", MEMORY), ("prefill only", INK), ("mixed", COMPUTE))


def write_trial_page(values: Values, path: Path) -> None:
    """Write the page of a trial, whole or not at all.

    Args:
        values: of ``trial.json``.
        path: of the page.

    Raises:
        BlendplanError: matplotlib is not installed, or the path cannot be written.
    """
    write_page(lambda: trial_page(values), path)


def trial_page(values: Values) -> str:
    """The page of a trial as one HTML document. Args: as above."""
    requests = values["excerpt"]["requests"]
    title = f"Does a plan help? {answer(values)}"
    how = "simulated" if values["simulated"] else "measured"
    parts = [
        f'<h1>{escape(title)}</h1><p class="muted">{count(requests["excerpt"])} of '
        f"{count(requests['whole'])} requests, {escape(values['model'])} on "
        f"{escape(values['gpu'])}, {escape(values['engine'])}, policy {escape(values['policy'])}, "
        f"{how}</p>{facts_grid(_facts(values))}",
        *(f'<p class="muted">{escape(one)}</p>' for one in sentences(values)),
        f'<section class="pair">{picture(_course(values))}'
        f"<div><h2>Both ways, {how}</h2>"
        f"{table(('', 'input order', 'as planned'), comparison(values))}</div></section>",
    ]
    if values["prices"] is not None:
        parts.append(
            f'<section class="pair">{picture(_steps(values))}'
            f"<div><h2>Time of a step</h2><p>The prices are {escape(prices(values))}.</p>"
            f"{_step_table(values)}</div></section>"
        )
    parts += [
        f"<section><h2>All {count(requests['whole'])} requests</h2>"
        f"<p>{escape(whole(values))}.</p>{_whole_table(values)}</section>",
        f"<section><h2>The excerpt beside the whole</h2>{_likeness(values)}</section>",
    ]
    return page("trial", parts)


def _facts(values: Values) -> dict[str, str]:
    got = values["gain"]
    return {
        "tokens/s, gained": gain(got["throughput"]),
        "gain that was predicted": gain(values["predicted"]["gain"]),
        "predicted makespan over the real one": gain(values["makespan_error"]["planned"]),
        "to expect of all requests": gain(values["whole"]["policies"]["fcfs"]["gain"]),
        "runs either way": count(got["repeats"]),
    }


def _course(values: Values) -> Chart:
    """Finished requests over time of every run."""
    with house_style():
        figure = new_figure(WIDTH, 2.8)
        axes = figure.subplots()
        high_s = max(run["makespan_s"] for run in values["runs"])
        unit_s = time_axis(axes.xaxis, high_s, ticks=8)
        seen: set[str] = set()
        for run in values["runs"]:
            way, course = run["way"], run["progress"]
            axes.plot(
                np.array([0.0, *course["end_s"]]) / unit_s,
                [0, *course["done"]],
                color=_COLOURS[way],
                label=None if way in seen else _WORDS[way],
            )
            seen.add(way)
        axes.axvline(
            values["predicted"]["planned"]["makespan_s"] / unit_s,
            color=MUTED,
            linestyle="--",
            linewidth=1,
            label="planned end",
        )
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="lower right")
    told = " and ".join(
        f"{duration(values['gain'][way]['makespan_s'])} {words}" for way, words in _WORDS.items()
    )
    return Chart("course", "Finished requests over time", "One line a run.", told, figure)


def _steps(values: Values) -> Chart:
    """Time of steps as priced and as they took."""
    points = {name: np.array(column) for name, column in values["prices"]["points"].items()}
    from matplotlib.ticker import FuncFormatter, NullFormatter

    both = np.concatenate([points["predicted_s"], points["measured_s"]])
    ends = float(both[both > 0].min()) * 0.8, float(both.max()) * 1.2
    with house_style():
        figure = new_figure(WIDTH, 3.4)
        axes = figure.subplots()
        axes.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1)
        for kind, (words, colour) in enumerate(_KINDS):
            rows = points["kind"] == kind
            if rows.any():
                x, y = points["predicted_s"][rows], points["measured_s"][rows]
                axes.plot(x, y, ".", color=colour, markersize=3, label=words)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        axes.set(xlabel="priced", ylabel="measured")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda second, _: duration(second)))
            axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower right", markerscale=3)
    return Chart(
        "steps",
        "Time of steps, priced and measured",
        "On the dashed line, the price is right; above it, the step took longer.",
        f"the prices are {prices(values)}",
        figure,
    )


def _step_table(values: Values) -> str:
    rows = [
        (
            f"{words}, {title}",
            count(one["steps"]),
            share(one["time_share"]),
            gain(one["total_error"]),
            share(one["median_error"]),
        )
        for prices_by, title in (("given", "priced before"), ("fitted", "by the profile"))
        for words, one in _by_kind(values["prices"][prices_by]["planned"])
        if one["steps"]
    ]
    return table(("steps", "number", "of the time", "priced too high", "median error"), rows)


def _by_kind(errors: Values) -> list[tuple[str, Values]]:
    kinds = errors["kinds"]
    return [("all", errors), *((name, kinds[name]) for name in kinds)]


def _whole_table(values: Values) -> str:
    rows = [
        (
            name,
            duration(one["makespan_s"]),
            rounded(one["throughput_tokens_per_s"]),
            share(one["prefix_sharing"]),
            count(one["preemptions"]),
            share(one["bound_ratio"]),
            "" if name == values["policy"] else gain(one["gain"]),
        )
        for name, one in values["whole"]["policies"].items()
    ]
    ours = f"{values['policy']} over it"
    heads = ("order", "makespan", "tokens/s", "sharing", "preemptions", "of the optimum", ours)
    return table(heads, rows)


def _likeness(values: Values) -> str:
    likeness = values["excerpt"]
    forms = {
        "prompt_tokens": ("mean prompt tokens", rounded),
        "output_tokens": ("mean output tokens, where stated", rounded),
        "max_tokens": ("mean max_tokens, where stated", rounded),
        "capped": ("requests with max_tokens", share),
        "prefix_sharing": ("prefix sharing that is possible", share),
    }
    rows = [
        (title, words(likeness[name]["whole"]), words(likeness[name]["excerpt"]))
        for name, (title, words) in forms.items()
        if likeness[name]["whole"] is not None and likeness[name]["excerpt"] is not None
    ]
    kinds = likeness["kinds"]
    rows.append(("kinds of requests", count(kinds["whole"]), count(kinds["excerpt"])))
    return table(("", "all", "excerpt"), rows)
