"""`write_pngs`: the pictures of a comparison as PNG files, drawn with matplotlib (an extra)."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blendplan.errors import BlendplanError
from blendplan.report.figures import Figures, PolicyFigure
from blendplan.report.html_svg import COMPUTE, INK, MEMORY, PLAIN, density_colour
from blendplan.report.quantities import count, duration, rounded, share
from blendplan.report.roles import is_planned
from blendplan.whole_file import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 9.0
_DPI = 150


def check_png_folder(directory: Path) -> None:
    """Raise what `write_pngs` would raise after the work; makes the folder where it is missing.

    Raises:
        BlendplanError: matplotlib is not installed, or the folder cannot be made.
    """
    if find_spec("matplotlib") is None:
        raise BlendplanError("PNG pictures need matplotlib; pip install 'blendplan[plots]'")
    if directory.is_file():
        raise BlendplanError(f"{directory} is a file; give a folder for the pictures")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BlendplanError(
            f"cannot make the folder {directory} ({error.strerror}); give another one"
        ) from error


def write_pngs(figures: Figures, directory: Path) -> list[Path]:
    """Write one PNG for each picture; answers the paths.

    Args:
        figures: from `draw_figures`.
        directory: made where it is missing.

    Raises:
        BlendplanError: as of `check_png_folder`, or a file cannot be written.
    """
    check_png_folder(directory)
    from matplotlib.figure import Figure

    rows = len(figures.policies)
    pictures: dict[str, tuple[float, Callable[[Figure, Figures], None]]] = {
        "throughput": (1.2 + 0.45 * rows, _throughput),
        "sharing": (1.2 + 0.45 * rows, _sharing),
        "steps": (0.8 + 1.7 * rows, _steps),
        "kv": (0.8 + 1.7 * rows, _kv),
        "density": (6.0, _density),
        "tree": (4.0, _tree),
    }
    paths = []
    for name, (height, draw) in pictures.items():
        picture = Figure(figsize=(_WIDE, height), layout="constrained")
        draw(picture, figures)
        path = directory / f"{name}.png"
        with replacing(path) as temporary:
            picture.savefig(temporary, dpi=_DPI)
        paths.append(path)
    return paths


def _throughput(picture: "Figure", figures: Figures) -> None:
    tokens = figures.prompt_tokens + figures.output_tokens
    best = tokens / figures.bound_s if figures.bound_s > 0 else 0.0
    values = [one.throughput_tokens_per_s for one in figures.policies]
    words = [f"{rounded(v)}, {share(v / best) if best else ''}" for v in values]
    axes = _bars(picture, figures, values, words, best)
    axes.set_title(f"Prompt and output tokens per second; upper bound {rounded(best)}")


def _sharing(picture: "Figure", figures: Figures) -> None:
    values = [one.prefix_sharing for one in figures.policies]
    axes = _bars(picture, figures, values, [share(v) for v in values], figures.optimal_sharing)
    axes.set_title(f"Prefix sharing; optimum {share(figures.optimal_sharing)}")


def _bars(
    picture: "Figure", figures: Figures, values: list[float], words: list[str], best: float
) -> "Axes":
    axes = picture.subplots()
    names = [one.name for one in figures.policies]
    colours = [COMPUTE if is_planned(name) else PLAIN for name in names]
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, words, label_type="center", color="white", weight="bold")
    axes.axvline(best, color=INK, linestyle="--", linewidth=1)
    axes.set_xlim(0, 1.04 * max([best, *values, 1e-12]))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _steps(picture: "Figure", figures: Figures) -> None:
    def panel(axes: "Axes", one: PolicyFigure) -> None:
        edges = np.concatenate(([0.0], one.end_s)) / 60
        for values, colour, label in (
            (one.compute_s, COMPUTE, "compute"),
            (one.memory_s, MEMORY, "memory"),
        ):
            axes.stairs(1e3 * values, edges, color=colour, label=label)
            axes.stairs(1e3 * values, edges, color=colour, alpha=0.15, fill=True)
        axes.set_ylabel("ms per step")

    _panels(picture, figures, panel)


def _kv(picture: "Figure", figures: Figures) -> None:
    def panel(axes: "Axes", one: PolicyFigure) -> None:
        minutes = one.kv.time_s / 60
        axes.stackplot(
            minutes,
            one.kv.compute_tokens / 1e3,
            one.kv.memory_tokens / 1e3,
            colors=[COMPUTE, MEMORY],
            alpha=0.6,
            labels=["compute side", "memory side"],
        )
        axes.axhline(figures.kv_tokens / 1e3, color=INK, linewidth=1)
        if len(one.kv.share_tokens):
            partition = one.kv.share_tokens / 1e3
            axes.plot(minutes, partition, color=INK, linestyle="--", label="partition")
        axes.set_ylim(0, figures.kv_tokens / 1e3 * 1.05)
        axes.set_ylabel("thousand KV tokens")

    _panels(picture, figures, panel)


def _panels(
    picture: "Figure", figures: Figures, draw: "Callable[[Axes, PolicyFigure], None]"
) -> None:
    panels = picture.subplots(len(figures.policies), 1, sharex=True, squeeze=False)[:, 0]
    for axes, one in zip(panels, figures.policies, strict=True):
        draw(axes, one)
        axes.set_title(f"{one.name}: {duration(one.makespan_s)}", loc="left", fontsize=10)
        axes.grid(alpha=0.3)
    panels[-1].legend(loc="upper right", ncols=3, fontsize=8)
    panels[-1].set_xlabel("minutes")
    panels[-1].set_xlim(0, max(one.makespan_s for one in figures.policies) / 60 or 1.0)


def _density(picture: "Figure", figures: Figures) -> None:
    axes = picture.subplots()
    cells = figures.map
    if len(cells.requests):
        sizes = 15 + 260 * np.sqrt(cells.demand_s / max(cells.demand_s.max(), 1e-300))
        middle = np.sqrt(cells.factor)
        axes.scatter(
            cells.prompt_tokens * middle,
            cells.output_tokens * middle,
            s=sizes,
            c=[density_colour(float(value)) for value in cells.density],
            marker="s",
            edgecolors="none",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("prompt tokens")
    axes.set_ylabel("output tokens")
    axes.set_title("Requests by length: blue is compute-heavy, orange memory-heavy; size is work")
    axes.grid(alpha=0.3)


def _tree(picture: "Figure", figures: Figures) -> None:
    axes = picture.subplots()
    for block in figures.tree:
        axes.bar(
            block.left,
            0.94,
            block.width,
            -block.level - 0.94,
            align="edge",
            facecolor=density_colour(block.density),
            edgecolor="white",
        )
        if block.width > 0.12:
            colour = "white" if not 0.22 < block.density < 4.5 else INK
            words = f"{count(block.requests)} requests\ndensity {rounded(block.density)}"
            middle = block.left + block.width / 2
            axes.text(
                middle, -block.level - 0.47, words, ha="center", va="center", color=colour, size=8
            )
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    axes.set_title("Top of the prefix tree: width is work, colour compute density")
