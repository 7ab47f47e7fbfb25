"""The pictures of a comparison as SVG: bars, time lines, density map, prefix tree."""

from collections.abc import Sequence

import numpy as np

from blendplan.report.figures import Figures, PolicyFigure
from blendplan.report.figures_map import DensityMap
from blendplan.report.figures_tree import TreeBlock
from blendplan.report.html_svg import (
    COMPUTE,
    INK,
    MEMORY,
    MUTED,
    PLAIN,
    Scale,
    area,
    curve,
    density_colour,
    line,
    rect,
    svg,
    text,
    time_axis,
    value_axis,
)
from blendplan.report.quantities import count, duration, rounded, share
from blendplan.report.roles import is_planned

_WIDTH = 560.0


def throughput_bars(figures: Figures) -> str:
    """Throughput of each policy beside the bound (the paper's Figure 7)."""
    tokens = figures.prompt_tokens + figures.output_tokens
    best = tokens / figures.bound_s if figures.bound_s > 0 else 0.0
    bars = [
        (
            one.name,
            one.throughput_tokens_per_s,
            f"{rounded(one.throughput_tokens_per_s)} tokens/s, {share(one.bound_ratio)}",
        )
        for one in figures.policies
    ]
    return _bars(bars, best, f"upper bound {rounded(best)} tokens/s", "Throughput by policy")


def sharing_bars(figures: Figures) -> str:
    """Prefix sharing of each policy beside the optimum (the paper's Figure 9)."""
    best = figures.optimal_sharing
    bars = [
        (
            one.name,
            one.prefix_sharing,
            share(one.prefix_sharing)
            + (f", {share(one.prefix_sharing / best)} of the optimum" if best > 0 else ""),
        )
        for one in figures.policies
    ]
    return _bars(bars, best, f"optimum {share(best)}", "Prefix sharing by policy")


def _bars(bars: Sequence[tuple[str, float, str]], best: float, best_label: str, label: str) -> str:
    left, right, row, top = 92.0, _WIDTH - 12, 30.0, 24.0
    height = top + row * len(bars) + 4
    scale = Scale(0.0, max([best, *(value for _, value, _ in bars)]) or 1.0, left, right)
    parts = []
    for index, (name, value, words) in enumerate(bars):
        y = top + index * row
        fill = COMPUTE if is_planned(name) else PLAIN
        end = scale.at(value)
        parts.append(text(left - 8, y + 18, name, anchor="end", size=13, fill=INK))
        parts.append(rect(left, y + 4, end - left, row - 10, fill, hint=f"{name}: {words}"))
        # Words go into the bar where they fit, beside it elsewhere.
        if end - left > 7.0 * len(words):
            colour = INK if fill == PLAIN else "#ffffff"
            parts.append(text(end - 8, y + 18, words, anchor="end", fill=colour))
        else:
            parts.append(text(end + 6, y + 18, words, fill=INK))
    x = scale.at(best)
    parts.append(line(x, top - 4, x, height, stroke=INK, dash="4 3"))
    parts.append(text(x, top - 9, best_label, anchor="end", fill=INK))
    return svg(_WIDTH, height, parts, label)


def step_times(figures: Figures, policy: PolicyFigure) -> str:
    """Compute and memory time per step over the run (the paper's Figure 10)."""
    height, top, left, right, bottom = 170.0, 8.0, 56.0, _WIDTH - 12, 146.0
    all_high = [
        float(np.max(values, initial=0.0))
        for one in figures.policies
        for values in (one.compute_s, one.memory_s)
    ]
    x = _run_scale(figures, left, right)
    y = Scale(0.0, max(all_high) * 1.05 or 1.0, bottom, top)
    parts = [*value_axis(y, left, right, duration), *time_axis(x, bottom, bottom - top)]
    ends = np.repeat(np.concatenate(([0.0], policy.end_s)), 2)[1:-1]
    for values, colour in ((policy.compute_s, COMPUTE), (policy.memory_s, MEMORY)):
        heights = y(np.repeat(values, 2))
        parts.append(area(x(ends), heights, np.full(len(ends), bottom), colour, 0.18))
        parts.append(curve(x(ends), heights, colour))
    parts.append(_end_mark(x.at(policy.makespan_s), top, bottom, policy))
    return svg(_WIDTH, height, parts, f"Compute and memory time per step, {policy.name}")


def kv_occupancy(figures: Figures, policy: PolicyFigure) -> str:
    """KV cache over the run by side, with the partition where the policy has one."""
    height, top, left, right, bottom = 170.0, 8.0, 56.0, _WIDTH - 12, 146.0
    x = _run_scale(figures, left, right)
    y = Scale(0.0, figures.kv_tokens * 1.04, bottom, top)
    kv = policy.kv
    at = x(kv.time_s)
    floor = np.full(len(at), bottom)
    compute, both = y(kv.compute_tokens), y(kv.compute_tokens + kv.memory_tokens)
    parts = [*value_axis(y, left, right, rounded), *time_axis(x, bottom, bottom - top)]
    parts.append(area(at, compute, floor, COMPUTE, 0.55))
    parts.append(area(at, both, compute, MEMORY, 0.55))
    parts.append(line(left, y.at(figures.kv_tokens), right, y.at(figures.kv_tokens), stroke=INK))
    if len(kv.share_tokens):
        parts.append(curve(at, y(kv.share_tokens), INK, dash="5 3", width=1.3))
    parts.append(_end_mark(x.at(policy.makespan_s), top, bottom, policy))
    return svg(_WIDTH, height, parts, f"KV cache over the run, {policy.name}")


def density_picture(density_map: DensityMap) -> str:
    """Requests by prompt and output length, coloured by density (the paper's Figure 4)."""
    left, right, top, bottom = 56.0, _WIDTH - 24, 10.0, 366.0
    factor = density_map.factor
    if not len(density_map.requests):
        return svg(_WIDTH, bottom, [], "No requests")
    low_x, high_x = density_map.prompt_tokens.min(), density_map.prompt_tokens.max() * factor
    low_y, high_y = density_map.output_tokens.min(), density_map.output_tokens.max() * factor
    x = Scale(float(low_x), float(high_x), left, right, logarithmic=True)
    y = Scale(float(low_y), float(high_y), bottom, top, logarithmic=True)
    parts = []
    for scale, horizontal in ((x, True), (y, False)):
        for power in range(24):
            tick = 4.0**power
            if not scale.low <= tick <= scale.high:
                continue
            at = scale.at(tick)
            if horizontal:
                parts += [
                    line(at, top, at, bottom),
                    text(at, bottom + 16, count(tick), anchor="middle", size=11),
                ]
            else:
                parts += [
                    line(left, at, right, at),
                    text(left - 6, at + 4, count(tick), anchor="end", size=11),
                ]
    # Cells are as large as their share of all the time that requests need.
    heaviest = float(density_map.demand_s.max())
    step_x = x.at(factor * low_x) - x.at(low_x)
    step_y = y.at(low_y) - y.at(factor * low_y)
    for p, d, requests, demand_s, density in zip(
        density_map.prompt_tokens,
        density_map.output_tokens,
        density_map.requests,
        density_map.demand_s,
        density_map.density,
        strict=True,
    ):
        size = 0.35 + 0.65 * float(np.sqrt(demand_s / heaviest)) if heaviest > 0 else 1.0
        hint = (
            f"prompts from {p:.0f}, outputs from {d:.0f} tokens: {count(requests)} requests, "
            f"density {rounded(density)}"
        )
        corner_x, corner_y = x.at(p) + step_x * (1 - size) / 2, y.at(d) - step_y * (1 + size) / 2
        parts.append(
            rect(
                corner_x, corner_y, step_x * size, step_y * size, density_colour(density), hint=hint
            )
        )
    parts.append(text((left + right) / 2, bottom + 34, "prompt tokens", anchor="middle"))
    parts.append(
        f'<text transform="translate(12 {(top + bottom) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle" font-size="12" fill="{MUTED}">output tokens</text>'
    )
    return svg(_WIDTH, bottom + 42, parts, "Requests by length and density")


def tree_picture(blocks: Sequence[TreeBlock]) -> str:
    """The top of the prefix tree, root above; widths are shares of all the work."""
    row, gap = 58.0, 4.0
    levels = 1 + max((block.level for block in blocks), default=0)
    parts = []
    for block in blocks:
        x, width = block.left * _WIDTH, block.width * _WIDTH
        y = block.level * (row + gap)
        name = "root" if block.level == 0 else f"{block.prefix_tokens} tokens"
        if block.nodes > 1:
            name = f"{count(block.nodes)} branches"
        said = f"{name}, {count(block.requests)} requests, density {rounded(block.density)}"
        fill = density_colour(block.density)
        parts.append(rect(x, y, width, row, fill, hint=said, stroke="#ffffff"))
        colour = "#ffffff" if not 0.22 < block.density < 4.5 else INK
        rows = [name, f"{rounded(block.requests)} requests", f"density {rounded(block.density)}"]
        if width > 6.0 * max(len(words) for words in rows) + 8:
            for index, words in enumerate(rows):
                weight = "600" if index == 2 else ""
                parts.append(
                    text(x + 6, y + 17 + 16 * index, words, size=11, fill=colour, weight=weight)
                )
    return svg(_WIDTH, levels * (row + gap), parts, "Top of the prefix tree")


def density_legend() -> str:
    """What the colours of map and tree mean."""
    width = 220.0
    stops = [0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0]
    step = width / len(stops)
    parts = []
    for index, density in enumerate(stops):
        parts.append(rect(index * step, 0, step, 12, density_colour(density)))
        parts.append(text((index + 0.5) * step, 26, f"{density:g}", anchor="middle", size=11))
    return svg(width, 30, parts, "Colours of compute density")


def _run_scale(figures: Figures, left: float, right: float) -> Scale:
    """All runs on one time line, so that a faster one is seen to end earlier."""
    longest = max(one.makespan_s for one in figures.policies)
    return Scale(0.0, longest or 1.0, left, right)


def _end_mark(x: float, top: float, bottom: float, policy: PolicyFigure) -> str:
    hint = f"{policy.name} ends after {duration(policy.makespan_s)}"
    return f"<g><title>{hint}</title>{line(x, top, x, bottom, stroke=INK)}</g>"
