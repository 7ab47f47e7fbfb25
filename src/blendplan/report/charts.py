"""`charts`: the pictures of a comparison, each drawn once, for HTML and for PNG alike.

Needs matplotlib; call `require_matplotlib` before this module is imported.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from blendplan.report.charts_workload import density_chart, tree_chart
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
from blendplan.report.figures import Figures, PolicyFigure
from blendplan.report.quantities import count, duration, rounded, share
from blendplan.report.roles import is_planned

# What a unit of the KV cache is, where that is not plain.
_SLOTS = {
    "tokens": "",
    "slots": " A slot is a block's share of a token; layers that keep different tokens have blocks "
    "of their own, so a token may take several.",
}


def charts(figures: Figures) -> tuple[Chart, ...]:
    """Throughput, prefix sharing, step times, KV cache, requests by length, prefix tree."""
    with house_style():
        return tuple(
            draw(figures)
            for draw in (_throughput, _sharing, _steps, _kv, density_chart, tree_chart)
        )


def _throughput(figures: Figures) -> Chart:
    """Throughput of each policy beside the bound (the paper's Figure 7)."""
    tokens = figures.prompt_tokens + figures.output_tokens
    best = tokens / figures.bound_s if figures.bound_s > 0 else 0.0
    words = [
        f"{rounded(one.throughput_tokens_per_s)} tokens/s, {share(one.bound_ratio)}"
        for one in figures.policies
    ]
    return _bars(
        figures,
        [one.throughput_tokens_per_s for one in figures.policies],
        words,
        best,
        f"upper bound {rounded(best)} tokens/s",
        ("throughput", "Throughput"),
        "Prompt and output tokens per second. The dashed line is what no schedule can exceed.",
    )


def _sharing(figures: Figures) -> Chart:
    """Prefix sharing of each policy beside the optimum (the paper's Figure 9)."""
    best = figures.optimal_sharing
    words = [
        share(one.prefix_sharing)
        + (f", {share(one.prefix_sharing / best)} of the optimum" if best > 0 else "")
        for one in figures.policies
    ]
    return _bars(
        figures,
        [one.prefix_sharing for one in figures.policies],
        words,
        best,
        f"optimum {share(best)}",
        ("sharing", "Prefix sharing"),
        "Share of the prompt tokens that came from the cache. The dashed line is the share with a "
        "cache that never evicts.",
    )


def _bars(
    figures: Figures,
    values: Sequence[float],
    words: Sequence[str],
    best: float,
    best_words: str,
    name_title: tuple[str, str],
    caption: str,
) -> Chart:
    name, title = name_title
    names = [one.name for one in figures.policies]
    figure = new_figure(WIDTH, 0.45 + 0.34 * len(names))
    axes = figure.subplots()
    widest = max([best, *values]) or 1.0
    colours = [COMPUTE if is_planned(policy) else PLAIN for policy in names]
    bars = axes.barh(names, values, height=0.66, color=colours)
    for row, (bar, value, said) in enumerate(zip(bars, values, words, strict=True)):
        hint(bar, f"{names[row]}: {said}")
        # Words go into the bar where they fit, beside it elsewhere.
        inside = value / widest > 0.6
        axes.annotate(
            said,
            (value, row),
            (-5 if inside else 5, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center_baseline",
            color="white" if inside and is_planned(names[row]) else INK,
        )
    axes.axvline(best, color=INK, linestyle="--", linewidth=1)
    axes.set_title(best_words, loc="right", fontsize=9)
    axes.set(xlim=(0, widest * 1.003), ylim=(len(names) - 0.5, -0.5), xticks=[])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    said = "; ".join(f"{policy} {value}" for policy, value in zip(names, words, strict=True))
    return Chart(name, title, caption, f"{title} by policy: {said}; {best_words}", figure)


def _steps(figures: Figures) -> Chart:
    """Compute and memory time per step over the run (the paper's Figure 10)."""
    high_s = max(
        float(np.max(values, initial=0.0))
        for one in figures.policies
        for values in (one.compute_s, one.memory_s)
    )

    def panel(axes: Axes, one: PolicyFigure, unit_s: float) -> None:
        step_unit_s = time_axis(axes.yaxis, high_s, ticks=4)
        edges = np.concatenate(([0.0], one.end_s)) / unit_s
        for values, colour, label in (
            (one.compute_s, COMPUTE, "compute"),
            (one.memory_s, MEMORY, "memory"),
        ):
            axes.stairs(values / step_unit_s, edges, color=colour, alpha=0.15, fill=True)
            axes.stairs(values / step_unit_s, edges, color=colour, linewidth=1.2, label=label)
        axes.set_ylim(0, 1.05 * high_s / step_unit_s or 1.0)

    return Chart(
        "steps",
        "Time per step over the run",
        "Compute and memory time of a step. The flatter and the more even the two lines, the less "
        "waits. All runs share one time line.",
        f"Compute and memory time per step over the run: {_runs(figures)}",
        _panels(figures, panel),
    )


def _kv(figures: Figures) -> Chart:
    """KV cache over the run by side, with the partition where the policy has one."""

    def panel(axes: Axes, one: PolicyFigure, unit_s: float) -> None:
        time = one.kv.time_s / unit_s
        axes.stackplot(
            time,
            one.kv.compute_tokens,
            one.kv.memory_tokens,
            colors=[COMPUTE, MEMORY],
            alpha=0.55,
            labels=["compute side", "memory side"],
        )
        axes.axhline(figures.kv_tokens, color=INK, linewidth=1, label="capacity")
        if len(one.kv.share_tokens):
            axes.plot(
                time,
                one.kv.share_tokens,
                color=INK,
                linestyle="--",
                linewidth=1,
                drawstyle="steps-post",
                label="partition",
            )
        axes.set_ylim(0, 1.04 * figures.kv_tokens)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda tokens, _: _plain(tokens)))

    return Chart(
        "kv",
        f"KV cache over the run, {figures.kv_unit}",
        "Held by requests of the compute and of the memory side. The dashed line is the partition, "
        f"where a policy has one: what it leaves to the compute side.{_SLOTS[figures.kv_unit]}",
        f"{figures.kv_unit.capitalize()} in the KV cache over the run, of "
        f"{count(figures.kv_tokens)}: {_runs(figures)}",
        _panels(figures, panel),
    )


def _panels(figures: Figures, draw: Callable[[Axes, PolicyFigure, float], None]) -> Figure:
    """One panel a policy, all on one time line, so that a faster run is seen to end earlier."""
    rows = len(figures.policies)
    figure = new_figure(WIDTH, 0.55 + 1.25 * rows)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    longest_s = max(one.makespan_s for one in figures.policies)
    legend: dict[str, Artist] = {}
    for axes, one in zip(panels, figures.policies, strict=True):
        unit_s = time_axis(axes.xaxis, longest_s, ticks=8)
        draw(axes, one, unit_s)
        axes.set_title(f"{one.name}: {duration(one.makespan_s)}")
        axes.set_xlim(0, longest_s / unit_s or 1.0)
        handles, labels = axes.get_legend_handles_labels()
        legend |= zip(labels, handles, strict=True)
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend))
    return figure


def _runs(figures: Figures) -> str:
    return ", ".join(
        f"{one.name} ends after {duration(one.makespan_s)}" for one in figures.policies
    )


def _plain(tokens: float) -> str:
    """As `rounded`, without digits that are 0."""
    text = rounded(tokens)
    number, letter = text.rstrip("kMGT"), text[len(text.rstrip("kMGT")) :]
    return f"{float(number):g}{letter}"
