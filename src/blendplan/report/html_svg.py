"""A few SVG primitives: enough to draw axes, curves, bars and labels without a library."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

COMPUTE = "#1f6fb4"
MEMORY = "#d9661f"
INK = "#1b2430"
MUTED = "#66717f"
GRID = "#e3e7ec"
PLAIN = "#9aa6b4"


@dataclass(frozen=True)
class Scale:
    """From data to pixels: ``low`` is drawn at ``begin`` and ``high`` at ``end``."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        data = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.logarithmic:
            data, low, high = np.log(data), math.log(low), math.log(high)
        span = high - low
        part = (data - low) / span if span else np.zeros_like(data)
        scaled: NDArray[np.float64] = self.begin + part * (self.end - self.begin)
        return scaled

    def at(self, value: float) -> float:
        """One value."""
        return float(self(value))


def round_ticks(high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers from 0 to ``high`` or a little below."""
    if not high > 0 or not math.isfinite(high):
        return [0.0]
    step = 10.0 ** math.floor(math.log10(high / count))
    for factor in (1, 2, 2.5, 5, 10):
        if high / (step * factor) <= count + 0.5:
            step *= factor
            break
    return [index * step for index in range(int(high / step + 1e-9) + 1)]


def time_ticks(high_s: float, count: int = 5) -> tuple[list[float], Callable[[float], str]]:
    """Round moments from 0 to ``high_s`` seconds, and how to write them."""
    units = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
    unit_s, sign = next((unit for unit in units if high_s >= 2 * unit[0]), units[-1])
    ticks = [unit_s * tick for tick in round_ticks(high_s / unit_s, count)]
    return ticks, lambda value: f"{value / unit_s:g} {sign}"


def svg(width: float, height: float, parts: Iterable[str], label: str) -> str:
    """A picture that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: float = 12,
    fill: str = MUTED,
    weight: str = "",
) -> str:
    """Words at a point; ``anchor`` is start, middle or end."""
    bold = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" '
        f'fill="{fill}"{bold}>{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = GRID, dash: str = "") -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashed}/>'
    )


def rect(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    *,
    hint: str = "",
    opacity: float = 1.0,
    stroke: str = "",
) -> str:
    """A box; ``hint`` shows when the mouse rests on it."""
    title = f"<title>{escape(hint)}</title>" if hint else ""
    faint = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    edge = f' stroke="{stroke}"' if stroke else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}" fill="{fill}"{faint}{edge}>{title}</rect>'
    )


def curve(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    stroke: str,
    *,
    dash: str = "",
    width: float = 1.8,
) -> str:
    """A line through points."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="{_through(x, y)}" fill="none" stroke="{stroke}" stroke-width="{width:g}" '
        f'stroke-linejoin="round"{dashed}/>'
    )


def area(
    x: NDArray[np.float64],
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    fill: str,
    opacity: float,
) -> str:
    """The space between two lines."""
    if not len(x):
        return ""
    back = _through(x[::-1], bottom[::-1]).replace("M", "L", 1)
    return f'<path d="{_through(x, top)}{back}Z" fill="{fill}" fill-opacity="{opacity:g}"/>'


def _through(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    points = [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)]
    return "M" + "L".join(points) if points else "M0,0"


def time_axis(scale: Scale, y: float, height: float) -> list[str]:
    """Ticks below a panel whose bottom is at ``y``."""
    ticks, write = time_ticks(scale.high)
    parts = []
    for tick in ticks:
        x = scale.at(tick)
        parts += [line(x, y, x, y - height), text(x, y + 15, write(tick), anchor="middle", size=11)]
    return parts


def value_axis(
    scale: Scale, left: float, right: float, write: Callable[[float], str], count: int = 3
) -> list[str]:
    """Horizontal grid lines with their values at the left."""
    parts = []
    for tick in round_ticks(scale.high, count):
        y = scale.at(tick)
        parts += [
            line(left, y, right, y),
            text(left - 6, y + 4, write(tick), anchor="end", size=11),
        ]
    return parts


def density_colour(density: float) -> str:
    """Memory-heavy is orange, balanced is pale, compute-heavy is blue."""
    low, high = math.log(0.05), math.log(20.0)
    where = math.log(min(max(density, 0.05), 20.0)) if density > 0 else low
    return _blended((where - low) / (high - low))


_DENSITY_STOPS: Sequence[tuple[float, tuple[int, int, int]]] = (
    (0.0, (178, 74, 12)),
    (0.25, (224, 135, 72)),
    (0.5, (236, 232, 224)),
    (0.75, (107, 163, 211)),
    (1.0, (18, 84, 147)),
)


def _blended(part: float) -> str:
    for (a, first), (b, last) in pairwise(_DENSITY_STOPS):
        if part <= b:
            inside = (part - a) / (b - a)
            mixed = (round(p + inside * (q - p)) for p, q in zip(first, last, strict=True))
            return "#" + "".join(f"{value:02x}" for value in mixed)
    return "#125493"
