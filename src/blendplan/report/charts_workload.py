"""`density_chart` and `tree_chart`: what there is to do, coloured by compute density.

Needs matplotlib; call `require_matplotlib` before this module is imported.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from blendplan.report.drawing import INK, PLAIN, WIDTH, Chart, hint, new_figure
from blendplan.report.figures import Figures
from blendplan.report.figures_tree import TreeBlock
from blendplan.report.quantities import count, rounded

_POINTS_PER_LETTER = 5.2
_DENSITIES = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
_SCALE = LogNorm(_DENSITIES[0], _DENSITIES[-1], clip=True)
_COLOURS = LinearSegmentedColormap.from_list(
    "density", ["#b24a0c", "#e08748", "#ece8e0", "#6ba3d3", "#125493"]
)


def density_colour(density: float) -> str:
    """Memory-heavy is orange, balanced is pale, compute-heavy is blue."""
    return to_hex(_COLOURS(_SCALE(max(density, _DENSITIES[0]))))


def density_chart(figures: Figures) -> Chart:
    """Requests by prompt and output length, coloured by density (the paper's Figure 4)."""
    figure = new_figure(WIDTH, 4.8)
    axes = figure.subplots()
    cells = figures.map
    heaviest = max(float(cells.demand_s.max(initial=0.0)), 1e-300)
    for p, d, requests, demand_s, density in zip(
        cells.prompt_tokens,
        cells.output_tokens,
        cells.requests,
        cells.demand_s,
        cells.density,
        strict=True,
    ):
        # Boxes are as large as their share of all the time that requests need.
        side = cells.factor ** (0.35 + 0.65 * np.sqrt(demand_s / heaviest))
        margin = np.sqrt(cells.factor / side)
        box = Rectangle(
            (p * margin, d * margin),
            p * margin * (side - 1),
            d * margin * (side - 1),
            facecolor=density_colour(density),
            edgecolor=PLAIN,
            linewidth=0.4,
        )
        hint(
            box,
            f"prompts from {p:.0f}, outputs from {d:.0f} tokens: {_number(requests, 'request')}, "
            f"density {rounded(density)}",
        )
        axes.add_patch(box)
    axes.set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel="output tokens")
    for axis, set_limits, corners in (
        (axes.xaxis, axes.set_xlim, cells.prompt_tokens),
        (axes.yaxis, axes.set_ylim, cells.output_tokens),
    ):
        axis.set_major_locator(LogLocator(2, numticks=9))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda tokens, _: count(tokens)))
        low, high = np.log2(corners.min(initial=1e9)), np.log2(corners.max(initial=1.0))
        set_limits(2 ** np.floor(min(low, high)), 2 ** (np.floor(high) + 1))
    _density_legend(figure)
    return Chart(
        "density",
        "Requests by length",
        "Larger boxes hold more of the work. Blue is compute-heavy, orange memory-heavy.",
        f"{count(figures.requests)} requests by length of prompt and output and compute density; "
        f"{rounded(figures.density)} over all",
        figure,
    )


def tree_chart(figures: Figures) -> Chart:
    """The top of the prefix tree, root above; widths are shares of all the work."""
    levels = 1 + max((block.level for block in figures.tree), default=0)
    figure = new_figure(WIDTH, 0.6 + 0.75 * levels)
    axes = figure.subplots()
    for block in figures.tree:
        _tree_block(axes, block)
    axes.set(xlim=(0, 1), ylim=(levels, 0))
    axes.set_axis_off()
    _density_legend(figure)
    return Chart(
        "tree",
        "Top of the prefix tree",
        "Each level splits the one above by prompt prefix; width is the share of the work, colour "
        "the compute density with shared prefixes computed once.",
        f"Top of the prefix tree: {len(figures.tree)} blocks on {levels} levels",
        figure,
    )


def _tree_block(axes: Axes, block: TreeBlock) -> None:
    name = "root" if block.level == 0 else _number(block.prefix_tokens, "token")
    if block.nodes > 1:
        name = f"{count(block.nodes)} branches"
    requests, density = _number(block.requests, "request"), f"density {rounded(block.density)}"
    box = Rectangle(
        (block.left, block.level + 0.03),
        block.width,
        0.94,
        facecolor=density_colour(block.density),
        edgecolor="white",
    )
    hint(box, f"{name}, {requests}, {density}")
    axes.add_patch(box)
    rows = (name, requests, density)
    if block.width * 72 * WIDTH < _POINTS_PER_LETTER * max(map(len, rows)) + 8:
        return
    colour = INK if 0.22 < block.density < 4.5 else "white"
    for row, words in enumerate(rows):
        axes.annotate(
            words,
            (block.left, block.level + 0.5),
            (5, 13 * (1 - row)),
            textcoords="offset points",
            va="center_baseline",
            fontsize=8.5,
            color=colour,
            weight="bold" if row == 2 else "normal",
        )


def _density_legend(figure: Figure) -> None:
    """What the colours of map and tree mean."""
    figure.legend(
        [
            Patch(facecolor=density_colour(density), edgecolor=PLAIN, linewidth=0.4)
            for density in _DENSITIES
        ],
        [f"{density:g}" for density in _DENSITIES],
        loc="outside lower center",
        ncols=len(_DENSITIES),
        title="density: compute time over memory time",
        handlelength=1.2,
        columnspacing=1.4,
    )


def _number(value: float, thing: str) -> str:
    return f"{count(value)} {thing}" + ("s" if value != 1 else "")
